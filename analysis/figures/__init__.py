"""The paper's figures and the figures behind its claims, drawn from tracked runs: one file a figure.

A file has a drawing function (arrays in, figure out) and ``draw(group, note)``, which collects the arrays. ``note``
takes a sentence about what is missing.
"""

"""The paper's figures, and figures that support its claims, drawn from tracked runs: one module per figure.

A module has a drawing function (arrays in, figure out) and ``draw(group, note)``, which collects the arrays, calls
``note`` with a sentence about each thing that is missing, and returns both: a figure is drawn when it is saved.
"""

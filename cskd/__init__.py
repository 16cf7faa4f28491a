"""Class-wise self-knowledge distillation (CS-KD): the method and its training, usable as a library.

Source of the method: Yun, Park, Lee, Shin, *Regularizing Class-wise Predictions via Self-knowledge
Distillation*, CVPR 2020, arXiv 2003.13964.
"""

__version__ = "0.1.0"

# Part of every run key. Raise it when a change to the code changes the numbers a run gives,
# so that results of before and after are never taken for seeds of the same cell.
NUMERICS_VERSION = 1

# Tracked with every run: what its tags, metrics and artifacts are called and mean. Raise it when an earlier analysis
# would misread what is tracked from now on. Runs that do not say are of version 1.
RECORDS_VERSION = 1

"""Write results/report.html."""

from analysis.report.report import main

__all__ = ["main"]

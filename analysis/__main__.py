"""The commands that read results: ``python -m analysis <command>``."""

from cskd.utils.cli import dispatch

COMMANDS = {
    "tables": "rebuild the error, ECE and reliability tables from MLflow",
    "report": "write every table, figure and verdict to one HTML page",
    "paired": "compare two experiments, or two methods of one, seed by seed",
    "measured": "export tracked results to CSV files that can be committed",
    "readme": "regenerate the result tables of the documentation from these files",
}

if __name__ == "__main__":
    dispatch("analysis", COMMANDS)

"""Figures as files."""

import gc
import multiprocessing
import sys
from pathlib import Path

from matplotlib.figure import Figure

from cskd.plots import save_figure


def save_figures(folder: Path, figures: dict[str, Figure]) -> None:
    """Each figure under its name, as PNG and PDF."""
    # Drawing is the work of one core at a time in one process: a copy of this one takes every other figure.
    names = list(figures)
    own, others = names[::2], names[1::2]
    copy = multiprocessing.get_context("fork").Process(
        target=_save_quietly, args=(folder, figures, others), daemon=True
    )
    copy.start()
    _save(folder, figures, own)
    copy.join()
    if copy.exitcode:
        _save(folder, figures, others)  # what went wrong is told from here, if it was not the copy itself


def _save(folder: Path, figures: dict[str, Figure], names: list[str]) -> None:
    for name in names:
        for ending in (".png", ".pdf"):
            save_figure(figures[name], folder / f"{name}{ending}")


def _save_quietly(folder: Path, figures: dict[str, Figure], names: list[str]) -> None:
    gc.freeze()  # a search for garbage in all that was there before would take memory for a second time
    try:
        _save(folder, figures, names)
    except BaseException:  # Ctrl-C too, of which the other process tells
        sys.exit(1)

"""Figures are drawn by two processes: all of them, and what goes wrong in either is told once."""

import os
import signal

import pytest
from matplotlib.figure import Figure

from analysis.figures import files
from cskd.errors import UserError

NAMES = ("one", "two", "three")
FILES = {f"{name}.{ending}" for name in NAMES for ending in ("png", "pdf")}


def figures() -> dict[str, Figure]:
    return {name: Figure(figsize=(1, 1)) for name in NAMES}


def instead_in_the_copy(monkeypatch, trouble) -> None:
    """What the other process does when it is to save a figure; this one saves as ever."""
    save, here = files.save_figure, os.getpid()
    monkeypatch.setattr(files, "save_figure", lambda *given: save(*given) if os.getpid() == here else trouble())


def test_every_figure_is_saved_by_one_of_two_processes(tmp_path, monkeypatch):
    save = files.save_figure

    def noted(figure, path):
        save(figure, path)
        with (tmp_path / "processes").open("a") as file:
            file.write(f"{os.getpid()}\n")

    monkeypatch.setattr(files, "save_figure", noted)
    files.save_figures(tmp_path, figures())
    processes = (tmp_path / "processes").read_text().split()
    assert len(processes) == 6
    assert sorted(map(processes.count, set(processes))) == [2, 4]
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"processes"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_a_copy_that_was_ended_leaves_is_saved_all_the_same(tmp_path, monkeypatch, capfd, number):
    instead_in_the_copy(monkeypatch, lambda: os.kill(os.getpid(), number))
    files.save_figures(tmp_path, figures())
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert capfd.readouterr().err == ""


def test_a_file_that_cannot_be_written_is_told_by_this_process_alone(tmp_path, capfd):
    (tmp_path / "two.pdf").mkdir()  # the copy's
    with pytest.raises(UserError, match=r"two\.pdf cannot be written"):
        files.save_figures(tmp_path, figures())
    assert capfd.readouterr().err == ""


def test_no_figure_is_no_error(tmp_path):
    files.save_figures(tmp_path, {})
    assert list(tmp_path.iterdir()) == []

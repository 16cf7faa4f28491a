"""The command that prepares datasets."""

import dataclasses

import fakes
import pytest

from cskd.data import download
from cskd.data.prepare import prepared_folder
from cskd.data.sources.base import Archive
from cskd.data.sources.registry import SOURCES
from experiments.launch.data_progress import format_amount


@pytest.fixture
def data_dir(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def command(monkeypatch, call, data_dir):
    """Calls the command with small datasets and without a network. Returns (exit status, output, errors)."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    for name, source in list(SOURCES.items()):
        archives = tuple(Archive(f"http://127.0.0.1:9/{one.filename}", one.filename) for one in source.archives)
        small = source if source.bundled else fakes.small(source)
        monkeypatch.setitem(SOURCES, name, dataclasses.replace(small, archives=archives))
    return lambda *arguments: call("experiments data", *arguments)


def test_prepared_dataset_is_summarised_in_one_line(command, data_dir):
    fakes.cub200(data_dir)
    status, output, errors = command("cub200")
    assert (status, errors) == (0, "")
    assert "cub200: decode train images 9\n" in output
    assert "cub200: 3 classes, 9 training and 6 test images, " in output
    assert "from folder CUB_200_2011, counts checked" in output


def test_unknown_dataset_fails_before_any_work(command, data_dir):
    status, output, errors = command("digits", "cub")
    assert (status, output) == (2, "")
    choices = "cifar100, tinyimagenet, cub200, dogs, mit67, digits, merged"
    assert errors == f"error: unknown dataset 'cub': choose from {choices}\n"
    assert list(data_dir.iterdir()) == []


def test_all_continues_after_a_failure_and_lists_every_error(command, data_dir):
    fakes.dogs(data_dir)
    status, output, errors = command("all")
    assert status == 2
    assert "dogs: 3 classes" in output
    assert "digits: 10 classes, 200 training and 1,597 test images, 0.3 MB, digest 1b06341fe337" in output
    assert "merged" not in output + errors  # its parts are prepared instead
    failed = [line.split()[1] for line in errors.splitlines()]
    assert failed == ["cifar-100-python.tar.gz", "tiny-imagenet-200.zip", "CUB_200_2011.tgz", "TrainImages.txt"]


def test_merged_dataset_prepares_missing_parts_and_names_the_failed_ones(command, data_dir):
    fakes.dogs(data_dir)
    status, output, errors = command("merged")
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith("error: merged lacks cub200: CUB_200_2011.tgz could not be downloaded")
    assert "; also mit67: TrainImages.txt could not be downloaded" in errors
    assert "merged: dogs: decode test images 6\n" in output
    assert (prepared_folder("dogs", data_dir) / "dataset.json").exists()
    fakes.cub200(data_dir)
    fakes.mit67(data_dir)
    status, output, errors = command("merged")
    assert (status, errors) == (0, "")
    assert "merged: dogs: decode" not in output
    assert "merged: 9 classes, 27 training and 18 test images, " in output
    assert "from cub200: folder CUB_200_2011, counts checked; dogs: folder stanford-dogs" in output


def test_partial_accepts_a_merged_dataset_with_an_incomplete_part(command, data_dir):
    for part in ("cub200", "dogs", "mit67"):
        fakes.TREES[part](data_dir)
    (data_dir / "mit67" / "Images" / "garage" / "garage_000.jpg").unlink()
    status, _, errors = command("merged")
    assert status == 2
    assert errors.startswith("error: merged lacks mit67: 1 listed images are missing")
    assert "PARTIAL=1" in errors
    status, output, _ = command("merged", "--partial")
    assert status == 0
    assert "merged: 9 classes, 26 training and 18 test images INCOMPLETE" in output


@pytest.mark.parametrize(
    ("stage", "done", "total", "text"),
    [
        ("download a.tar", 3_100_000, 169_000_000, "3.1/169.0 MB"),
        ("download a.tar", 3_100_000, None, "3.1 MB"),
        ("decode train images", 1200, 50_000, "1,200/50,000"),
        ("list images", None, None, ""),
    ],
)
def test_amounts_have_their_units(stage, done, total, text):
    assert format_amount(stage, done, total) == text

"""The command that prepares datasets."""

import dataclasses
import sys

import fakes
import pytest

from cskd.data import archive as archives
from cskd.data import prepare as catalog
from cskd.utils import cli
from experiments.commands import data


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Runs the command with DATA_DIR in a temporary folder; returns (exit status, output, errors)."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(archives, "ATTEMPTS", 1)
    for name in list(catalog.SOURCES):
        source = catalog.SOURCES[name]
        nowhere = [
            archives.Archive(f"http://127.0.0.1:9/{archive.filename}", archive.filename) for archive in source.archives
        ]
        small = source if source.bundled else fakes.small(source)
        monkeypatch.setitem(catalog.SOURCES, name, dataclasses.replace(small, archives=tuple(nowhere)))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["data", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.run(data.main)
        return caught.value.code, *capsys.readouterr()

    return run


def test_a_dataset_is_prepared_and_told_in_a_line(command, tmp_path):
    fakes.cub200(tmp_path)
    status, output, errors = command("cub200", "digits")
    assert status == 0
    assert errors == ""
    assert "cub200: decode train images 9\n" in output
    assert "cub200: 3 classes, 9 training and 6 test images, " in output
    assert "from folder CUB_200_2011 at hand, counts checked" in output
    assert "digits: 10 classes, 200 training and 1,597 test images, 0.3 MB, digest " in output


def test_an_unknown_dataset_fails_before_anything_is_done(command, tmp_path):
    status, output, errors = command("digits", "cub")
    assert (status, output) == (2, "")
    known = "cifar100, tinyimagenet, cub200, dogs, mit67, digits, merged"
    assert errors == f"error: unknown dataset 'cub': choose from {known}\n"
    assert list(tmp_path.iterdir()) == []


def test_all_goes_on_after_a_failure_and_lists_every_error(command, tmp_path):
    fakes.dogs(tmp_path)
    status, output, errors = command("all")
    assert status == 2
    assert "dogs: 3 classes" in output
    assert "digits: 10 classes" in output
    assert "merged" not in output + errors  # it is its parts, which have been tried
    failed = [line.split()[1] for line in errors.splitlines()]
    assert failed == [
        "cifar-100-python.tar.gz",
        "tiny-imagenet-200.zip",
        "CUB_200_2011.tgz",
        "TrainImages.txt",
    ]


def test_partial_takes_an_incomplete_copy(command, tmp_path):
    folder = fakes.tiny_imagenet(tmp_path)
    (folder / "train" / "n01443537" / "images" / "n01443537_0.JPEG").unlink()
    status, _, errors = command("tinyimagenet")
    assert status == 2
    assert "PARTIAL=1" in errors
    status, output, _ = command("tinyimagenet", "--partial")
    assert status == 0
    assert "8 training and 6 test images INCOMPLETE" in output


def test_a_merged_set_prepares_its_parts(command, tmp_path):
    for part in ("cub200", "dogs", "mit67"):
        fakes.TREES[part](tmp_path)
    status, output, errors = command("merged")
    assert (status, errors) == (0, "")
    assert "merged: dogs: decode train images 9\n" in output
    assert "merged: 9 classes, 27 training and 18 test images, " in output
    assert "from cub200: folder CUB_200_2011 at hand, counts checked; dogs: folder stanford-dogs at hand" in output
    status, output, _ = command("merged", "dogs")
    assert status == 0
    assert "decode" not in output
    assert "9 classes" in output


def test_a_merged_set_says_which_parts_are_missing_and_keeps_the_others(command, tmp_path):
    fakes.dogs(tmp_path)
    status, output, errors = command("merged")
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith("error: merged lacks cub200: CUB_200_2011.tgz could not be downloaded")
    assert "; also mit67: TrainImages.txt could not be downloaded" in errors
    assert "merged: dogs: decode test images 6\n" in output
    assert (catalog.prepared_folder("dogs", tmp_path) / "dataset.json").exists()


def test_a_merged_set_of_an_incomplete_part_is_incomplete(command, tmp_path):
    for part in ("cub200", "dogs", "mit67"):
        fakes.TREES[part](tmp_path)
    (tmp_path / "mit67" / "Images" / "garage" / "garage_000.jpg").unlink()
    status, _, errors = command("merged")
    assert status == 2
    assert errors.startswith("error: merged lacks mit67: 1 listed images are missing")
    status, output, _ = command("merged", "--partial")
    assert status == 0
    assert "merged: 9 classes, 26 training and 18 test images INCOMPLETE" in output


def test_the_help_names_the_datasets(command):
    status, output, _ = command("--help")
    assert status == 0
    for name in catalog.SOURCES:
        assert name in output


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
    assert data.amount(stage, done, total) == text

"""The command that prepares datasets."""

import dataclasses
import os
from pathlib import Path

import fakes
import pytest

from cskd.data import archives
from cskd.data.prepare import prepare, prepared_folder
from cskd.data.sources.base import Archive
from cskd.data.sources.registry import SOURCES
from experiments.config import recipe
from experiments.launch.data_progress import format_amount


@pytest.fixture
def data_dir(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def command(monkeypatch, call, data_dir):
    """Calls the command with small datasets and without a network. Returns (exit status, output, errors)."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(archives, "ATTEMPTS", 1)
    for name, source in list(SOURCES.items()):
        unreachable = tuple(Archive(f"http://127.0.0.1:9/{one.filename}", one.filename) for one in source.archives)
        small = source if source.bundled else fakes.small(source)
        monkeypatch.setitem(SOURCES, name, dataclasses.replace(small, archives=unreachable))
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
    assert errors.startswith("error: merged lacks mit67: 1 images are missing")
    assert "PARTIAL=1" in errors
    status, output, errors = command("merged", "--partial")
    assert status == 0
    assert "warning: merged: 1 files are skipped: " in errors
    assert "merged: 9 classes, 26 training and 18 test images INCOMPLETE" in output


@pytest.fixture
def flowers(command, data_dir, monkeypatch, tmp_path):
    """An image folder with a recipe, ``DATA_DIR/flowers``."""
    monkeypatch.setattr(recipe, "RECIPES", tmp_path / "recipes")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "flowers.yaml").write_text(
        "data: {reader: image-folder, folder: flowers}\ninputs: {image_size: 32, train: resized-crop}\nbatch_size: 4\n"
    )
    return fakes.image_folder(data_dir / "flowers")


def test_every_file_below_a_class_folder_is_used_or_named_with_its_reason(command, flowers):
    rose = flowers / "train" / "rose"
    for litter in (".DS_Store", "._000.png", "Thumbs.db", "__MACOSX/000.png", ".cache/000.png"):
        (rose / litter).parent.mkdir(exist_ok=True)
        (rose / litter).write_text("litter")
    fakes.write_image(rose / "more" / "deep.png")
    (rose / "loop").symlink_to(rose, target_is_directory=True)
    named = {
        rose / "notes.txt": "not an image suffix",
        rose / "photo.heic": "not an image suffix",
        rose / "more" / "labels": "not an image suffix",
        flowers / "test" / "index.csv": "not an image suffix",
    }
    for path in named:
        path.write_text("other")
    os.mkfifo(rose / "pipe.png")
    (flowers / "val").mkdir()
    named |= {rose / "pipe.png": "not a regular file", flowers / "val": "only train and test are read"}
    for _ in range(2):  # also if the dataset is prepared already
        status, output, errors = command("flowers")
        assert (status, errors.count("\n")) == (0, 1)
        assert "flowers: 3 classes, 10 training and 6 test images" in output
        assert errors.startswith(f"warning: flowers: {len(named)} files are skipped: ")
        assert all(f"{path} ({reason})" in errors for path, reason in named.items())


def test_other_name_of_a_split_is_refused_with_the_one_thing_to_do(command, flowers):
    (flowers / "test").rename(flowers / "val")
    status, _, errors = command("flowers")
    assert status == 2
    assert errors.endswith("flowers/test is missing: add it, or rename val to test\n")
    (flowers / "val").rename(flowers / "test")
    assert command("flowers")[0] == 0


def test_dangling_links_are_missing_images_and_the_remedy_works(command, flowers):
    links = [flowers / "train" / "rose" / name for name in ("000.png", "001.png", "folder")]
    for link in links:
        link.unlink(missing_ok=True)
        link.symlink_to(flowers / "nowhere")
    status, _, errors = command("flowers")
    assert (status, errors.count("\n")) == (2, 1)
    assert f"flowers: 3 images are missing: {links[0]}, {links[1]}, {links[2]}: restore or remove them" in errors
    status, output, errors = command("flowers", "--partial")
    assert (status, errors.count("\n")) == (0, 1)
    assert "7 training and 6 test images INCOMPLETE" in output
    assert all(f"{link} (missing)" in errors for link in links)
    for link in links:
        link.unlink()
    assert command("flowers")[0] == 0


def test_class_of_dangling_links_only_is_not_offered_as_an_incomplete_copy(command, flowers):
    for image in (flowers / "train" / "rose").iterdir():
        image.unlink()
        image.symlink_to("nowhere")
    for options in ((), ("--partial",)):
        status, _, errors = command("flowers", *options)
        assert status == 2
        assert "3 images are missing" in errors
        assert "PARTIAL" not in errors


def test_dry_run_names_an_image_folder_that_it_cannot_count(call, flowers):
    status, output, errors = call("experiments grid", "table1", "--datasets", "flowers", "--dry-run")
    assert (status, errors) == (0, "")
    assert output.splitlines()[-1] == "Not counted: flowers (not prepared: make data DATASET=flowers)"


def into_class_folders(val: Path, inner: str = "") -> None:
    """Sort TinyImageNet's validation images into class folders, as many scripts do."""
    for line in (val / "val_annotations.txt").read_text().splitlines():
        name, wnid, *_ = line.split("\t")
        (val / wnid / inner).mkdir(parents=True, exist_ok=True)
        (val / "images" / name).rename(val / wnid / inner / name)
    (val / "images").rmdir()


def flattened(folder: Path) -> None:
    for image in list(folder.glob("train/*/images/*")):
        image.rename(image.parent.parent / image.name)


TINY_LAYOUTS = {
    "sorted": lambda folder: into_class_folders(folder / "val"),
    "sorted with images": lambda folder: into_class_folders(folder / "val", "images"),
    "sorted without the list": lambda folder: (
        into_class_folders(folder / "val"),
        (folder / "val" / "val_annotations.txt").unlink(),
    ),
    "flat classes": flattened,
    "unpacked twice as deep": lambda folder: (
        folder.rename(folder.with_name("inner")),
        folder.mkdir(),
        folder.with_name("inner").rename(folder / folder.name),
    ),
}


@pytest.mark.parametrize("layout", TINY_LAYOUTS)
def test_layouts_of_tinyimagenet_give_the_same_dataset(command, data_dir, tmp_path, layout):
    fakes.tiny_imagenet(tmp_path / "official")
    digest = prepare("tinyimagenet", tmp_path / "official").digest
    TINY_LAYOUTS[layout](fakes.tiny_imagenet(data_dir))
    status, output, errors = command("tinyimagenet")
    assert (status, errors) == (0, "")
    assert f"9 training and 6 test images, 0.2 MB, digest {digest[:12]}" in output


def test_remedies_of_an_incomplete_tinyimagenet_work(command, data_dir, tmp_path):
    folder = fakes.tiny_imagenet(data_dir)
    (folder / "val" / "images").rename(tmp_path / "images")
    for options in ((), ("--partial",)):
        status, _, errors = command("tinyimagenet", *options)
        assert status == 2
        assert "6 images are missing" in errors
        assert "unpack the official archive again" in errors
        assert "PARTIAL" not in errors  # without test images it could not work
    (tmp_path / "images").rename(folder / "val" / "images")
    (folder / "val" / "images" / "val_3.JPEG").unlink()
    assert "PARTIAL=1" in command("tinyimagenet")[2]
    status, output, errors = command("tinyimagenet", "--partial")
    assert (status, errors.count("\n")) == (0, 1)
    assert "5 test images INCOMPLETE" in output
    assert f"{folder}/val/images/val_3.JPEG (missing)" in errors


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

"""The command that prepares datasets."""

import dataclasses
import os
import shutil
from pathlib import Path

import fakes
import pytest

from cskd.data import archives
from cskd.data.prepare import prepare, prepared_folder
from cskd.data.sources.base import Archive
from cskd.data.sources.registry import SOURCES
from experiments.config import recipe
from experiments.config.settings import Data
from experiments.launch.data_progress import preparation_lines


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
        unreachable = tuple(
            Archive(f"http://127.0.0.1:9/{one.filename}", one.filename, needs_account=one.needs_account)
            for one in source.archives
        )
        small = source if source.bundled else fakes.small(source)
        monkeypatch.setitem(SOURCES, name, dataclasses.replace(small, archives=unreachable))
    return lambda *arguments: call("experiments data", *arguments)


def test_all_continues_after_a_failure_and_lists_every_error(command, data_dir):
    fakes.dogs(data_dir)
    status, output, errors = command("all")
    assert status == 2
    assert "dogs: decode train images 9\n" in output
    assert "dogs: 3 classes, 9 training and 6 test images, " in output
    assert "digits: 10 classes, 200 training and 1,597 test images, 0.3 MB, digest 1b06341fe337" in output
    assert "merged" not in output + errors  # its parts are prepared instead
    assert "ILSVRC2012" not in output + errors  # ImageNet needs an account
    failed = [line.split()[1] for line in errors.splitlines()]
    assert failed == ["cifar-100-python.tar.gz", "tiny-imagenet-200.zip", "CUB_200_2011.tgz", "TrainImages.txt"]


def test_merged_dataset_prepares_missing_parts_and_names_the_failed_ones(command, data_dir):
    fakes.dogs(data_dir)
    status, output, errors = command("merged")
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith("error: merged lacks cub200: CUB_200_2011.tgz could not be downloaded")
    assert "; also mit67: TrainImages.txt could not be downloaded" in errors
    assert (prepared_folder("dogs", data_dir) / "dataset.json").exists()
    fakes.cub200(data_dir)
    (fakes.mit67(data_dir) / "Images" / "garage" / "garage_000.jpg").unlink()
    status, _, errors = command("merged")
    assert status == 2
    assert errors.startswith("error: merged lacks mit67: 1 images are missing")
    assert "PARTIAL=1" in errors
    status, output, errors = command("merged", "--partial")
    assert status == 0
    assert "warning: merged: 1 files are skipped: " in errors
    assert "merged: dogs: decode" not in output
    assert "merged: 9 classes, 26 training and 18 test images INCOMPLETE" in output


@pytest.fixture
def flowers(command, data_dir, monkeypatch, tmp_path):
    """An image folder with a recipe, ``DATA_DIR/flowers``."""
    shutil.copytree(recipe.RECIPES, tmp_path / "recipes")
    monkeypatch.setattr(recipe, "RECIPES", tmp_path / "recipes")
    (tmp_path / "recipes" / "flowers.yaml").write_text(
        "data: {reader: image-folder, folder: flowers}\ninputs: {image_size: 32, train: resized-crop}\nbatch_size: 4\n"
    )
    return fakes.image_folder(data_dir / "flowers")


def test_every_file_below_a_class_folder_is_used_or_named_with_its_reason(command, flowers):
    rose = flowers / "train" / "rose"
    for litter in (".DS_Store", "Thumbs.db", "__MACOSX/000.png"):
        (rose / litter).parent.mkdir(exist_ok=True)
        (rose / litter).write_text("litter")
    fakes.write_image(rose / "more" / "deep.png")
    (rose / "loop").symlink_to(rose, target_is_directory=True)
    other = [rose / "notes.txt", rose / "photo.heic", rose / "more" / "labels", flowers / "test" / "index.csv"]
    for path in other:
        path.write_text("other")
    os.mkfifo(rose / "pipe.png")
    (flowers / "val").mkdir()
    named = dict.fromkeys(other, "not an image suffix")
    named |= {rose / "pipe.png": "not a regular file", flowers / "val": "only train and test are read"}
    for _ in range(2):  # also if the dataset is prepared already
        status, output, errors = command("flowers")
        assert (status, errors.count("\n")) == (0, 1)
        assert "flowers: 3 classes, 10 training and 6 test images" in output
        assert errors.startswith(f"warning: flowers: {len(named)} files are skipped: ")
        assert all(f"{path} ({reason})" in errors for path, reason in named.items())


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


def test_dry_run_names_an_image_folder_that_it_cannot_count(call, flowers):
    status, output, errors = call("experiments grid", "table1", "--datasets", "flowers", "--dry-run")
    assert (status, errors) == (0, "")
    assert output.splitlines()[-1] == "Not counted: flowers (not prepared: make data DATASET=flowers)"


def test_plan_names_the_archives_that_need_an_account(tmp_path):
    (tmp_path / "ILSVRC2012_img_val.tar").touch()
    plan, *missing = preparation_lines({"imagenet": Data(reader="imagenet")}, tmp_path)
    assert "147.90 GB to download and 302.55 GB of disk" in plan  # the archives and, once more, their images
    assert [line.split(" download ")[1].split()[0] for line in missing] == [
        "ILSVRC2012_img_train.tar",
        "ILSVRC2012_devkit_t12.tar.gz",
    ]


def sort_into_class_folders(folder: Path) -> None:
    """Sort the validation images into class folders, as many scripts do."""
    val = folder / "val"
    for line in (val / "val_annotations.txt").read_text().splitlines():
        name, wnid, *_ = line.split("\t")
        (val / wnid).mkdir(exist_ok=True)
        (val / "images" / name).rename(val / wnid / name)
    (val / "images").rmdir()


def nest(folder: Path) -> None:
    inner = folder.rename(folder.with_name("inner"))
    folder.mkdir()
    inner.rename(folder / folder.name)


@pytest.mark.parametrize("change", [sort_into_class_folders, nest])
def test_layouts_of_tinyimagenet_give_the_same_dataset(command, data_dir, tmp_path, change):
    fakes.tiny_imagenet(tmp_path / "official")
    digest = prepare("tinyimagenet", tmp_path / "official").digest
    change(fakes.tiny_imagenet(data_dir))
    status, output, errors = command("tinyimagenet")
    assert (status, errors) == (0, "")
    assert f"9 training and 6 test images, 0.2 MB, digest {digest[:12]}" in output

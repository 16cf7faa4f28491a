"""From a name to a prepared dataset: what is at hand, what is fetched, what is refused."""

import dataclasses
import hashlib
import multiprocessing
import shutil
import tarfile
import zipfile
from pathlib import Path

import fakes
import pytest

from cskd.data import archive as archives
from cskd.data import prepare as catalog
from cskd.data.prepare import SOURCES, open_prepared, prepare, prepared_folder
from cskd.utils.errors import UserError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pack(source, tree: Path, into: Path):
    """Put the official archives of a fake tree into a folder; the source, expecting them.

    Checksums are published where the official ones are. Their addresses lead nowhere.
    """
    into.mkdir(parents=True, exist_ok=True)
    packed = []
    for archive in source.archives:
        path = into / archive.filename
        if path.suffix == ".txt":
            shutil.copy(tree / path.name, path)
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as file:
                for entry in sorted(tree.rglob("*")):
                    file.write(entry, entry.relative_to(tree.parent))
        else:
            with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as file:
                for entry in _entries(path.name, tree):
                    file.add(entry, entry.relative_to(tree if source.archive_root == "." else tree.parent))
        checksum = archive.checksum
        if checksum:
            checksum = f"{archive.algorithm}:{hashlib.new(archive.algorithm, path.read_bytes()).hexdigest()}"
        url = f"http://127.0.0.1:9/{archive.filename}"
        packed.append(dataclasses.replace(archive, url=url, checksum=checksum))
    return dataclasses.replace(fakes.small(source), archives=tuple(packed))


def _entries(name: str, tree: Path) -> list[Path]:
    """What the official tar file of that name has at its top, in a fake tree."""
    if name == "lists.tar":
        return sorted(tree.glob("*.mat"))
    if name in ("images.tar", "indoorCVPR_09.tar"):
        return [tree / "Images"]
    if name == "CUB_200_2011.tgz":
        return [tree, tree.parent / "attributes.txt"]
    return [tree]


@pytest.mark.parametrize("name", fakes.TREES)
@pytest.mark.parametrize("place", [".", "downloads"])
def test_archives_at_hand_give_what_their_unpacked_tree_gives(tmp_path, name, place):
    tree = fakes.TREES[name](tmp_path / "made")
    data_dir = tmp_path / "data"
    source = pack(SOURCES[name], tree, data_dir / place)
    before = names(data_dir)
    dataset = prepare(name, data_dir, source=source)
    assert dataset.complete
    assert source.archives[-1].filename in dataset.source
    assert "verified), counts checked" in dataset.source
    assert dataset.digest == prepare(name, tmp_path / "made", source=source).digest
    assert names(data_dir) == sorted({*before, "prepared"})  # the archives stay, nothing else does
    assert names(data_dir / "prepared") == [name]


def test_what_is_prepared_is_not_prepared_again(tmp_path):
    fakes.cub200(tmp_path)
    first = prepare("cub200", tmp_path, source=fakes.small(SOURCES["cub200"]))
    shutil.rmtree(tmp_path / "CUB_200_2011")
    for dataset in (prepare("cub200", tmp_path), open_prepared("cub200", tmp_path)):
        assert dataset.digest == first.digest


def test_what_is_damaged_is_prepared_again(tmp_path):
    source = fakes.small(SOURCES["cub200"])
    fakes.cub200(tmp_path)
    first = prepare("cub200", tmp_path, source=source)
    (prepared_folder("cub200", tmp_path) / "train" / "images.bin").write_bytes(b"")
    with pytest.raises(UserError, match="make data DATASET=cub200"):
        open_prepared("cub200", tmp_path)
    assert prepare("cub200", tmp_path, source=source).digest == first.digest


@pytest.mark.parametrize("name", ["tinyimagenet", "cub200", "dogs", "mit67"])
def test_an_incomplete_copy_needs_partial_and_is_marked(tmp_path, name):
    source = fakes.small(SOURCES[name])
    fakes.TREES[name](tmp_path)
    missing = source.read(source.find(tmp_path)).train[-1][0]
    content = missing.read_bytes()
    missing.unlink()
    with pytest.raises(UserError, match=r"PARTIAL=1") as caught:
        prepare(name, tmp_path, source=source)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "prepared").exists()
    dataset = prepare(name, tmp_path, source=source, partial=True)
    assert not dataset.complete
    assert len(dataset.train) == 3 * fakes.TRAIN - 1
    assert dataset.source.endswith("at hand, incomplete")
    with pytest.raises(UserError, match=r"PARTIAL=1"):
        prepare(name, tmp_path, source=source)
    missing.write_bytes(content)
    assert prepare(name, tmp_path, source=source).complete


def test_wrong_counts_name_what_was_expected_and_what_was_found(tmp_path):
    fakes.cub200(tmp_path)
    with pytest.raises(UserError, match=r"CUB-200-2011 has 200 classes, .*CUB_200_2011 has 3"):
        prepare("cub200", tmp_path, partial=True)
    source = dataclasses.replace(SOURCES["cub200"], num_classes=3)
    with pytest.raises(UserError, match="expected 5,994 training images, found 9 and 5,794 test images, found 6"):
        prepare("cub200", tmp_path, source=source)
    assert not (tmp_path / "prepared").exists()


def test_a_damaged_archive_at_hand_is_told_before_it_is_unpacked(tmp_path):
    source = pack(SOURCES["dogs"], fakes.dogs(tmp_path / "made"), tmp_path / "data")
    path = tmp_path / "data" / "images.tar"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"{path} has sha256 .*, not sha256"):
        prepare("dogs", tmp_path / "data", source=source)
    assert names(tmp_path / "data") == ["images.tar", "lists.tar"]


def test_without_a_network_one_line_names_every_file_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "BACKOFF_S", 0)
    monkeypatch.setenv("no_proxy", "*")
    source = pack(SOURCES["mit67"], fakes.mit67(tmp_path / "made"), tmp_path / "data")
    for name in ("TestImages.txt", "indoorCVPR_09.tar"):
        (tmp_path / "data" / name).unlink()
    with pytest.raises(UserError) as caught:
        prepare("mit67", tmp_path / "data", source=source)
    message = str(caught.value)
    assert "\n" not in message
    for archive in source.archives[1:]:
        assert archive.by_hand(tmp_path / "data" / "downloads") in message
    assert source.archives[0].filename not in message.removesuffix(source.unpacked(tmp_path / "data"))
    assert not (tmp_path / "data" / "prepared").exists()


@pytest.mark.parametrize("name", fakes.TREES)
def test_without_a_network_every_folder_that_is_looked_for_is_named_and_what_it_has(tmp_path, monkeypatch, name):
    monkeypatch.setattr(archives, "ATTEMPTS", 1)
    monkeypatch.setenv("no_proxy", "*")
    source = pack(SOURCES[name], fakes.TREES[name](tmp_path / "made"), tmp_path / "packed")
    with pytest.raises(UserError) as caught:
        prepare(name, tmp_path / "data", source=source)
    _, _, message = str(caught.value).partition("; an unpacked tree is taken as well, as ")
    folders, _, layout = message.partition(": ")
    assert folders.split(" or ") == [f"{tmp_path / 'data' / folder}/" for folder in source.folders]
    for folder in source.folders:  # each is taken
        tree = source.find(tmp_path / "made")
        shutil.copytree(tree, tmp_path / folder / folder)
        assert prepare(name, tmp_path / folder, source=source).complete
    assert all(landmark in layout for landmark in source.landmarks)


def test_the_class_folders_of_cifar100_are_named_too(tmp_path):
    assert "{train,test}/<class>/<images>" in SOURCES["cifar100"].unpacked(tmp_path)


def test_a_truncated_image_leaves_nothing_behind(tmp_path):
    image = fakes.cub200(tmp_path / "made") / "images" / "002.Laysan_Albatross" / "Laysan_Albatross_0000_6.jpg"
    image.write_bytes(image.read_bytes()[:-40])
    source = pack(SOURCES["cub200"], tmp_path / "made" / "CUB_200_2011", tmp_path / "data")
    with pytest.raises(UserError, match=r"1 of 15 images cannot be decoded: CUB_200_2011/.*_0000_6\.jpg") as caught:
        prepare("cub200", tmp_path / "data", source=source)
    assert f"read from {tmp_path / 'data' / 'CUB_200_2011.tgz'}: delete" in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "data").rglob("*")) == ["CUB_200_2011.tgz", "prepared"]


def test_a_file_in_the_place_of_data_dir_is_told(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(UserError, match="data is not a folder"):
        prepare("digits", tmp_path / "data")


def _prepare_digits(data_dir, said):
    catalog.prepare("digits", data_dir, report=lambda stage, done, total: said.put(stage))


def test_processes_prepare_one_after_the_other(tmp_path):
    context = multiprocessing.get_context("spawn")
    said = context.Queue()
    tmp_path.joinpath("data").mkdir()
    with catalog.exclusive(tmp_path / "data", lambda *_: None):
        process = context.Process(target=_prepare_digits, args=(tmp_path / "data", said))
        process.start()
        assert said.get(timeout=30).startswith("wait for another process")
        assert not (tmp_path / "data" / "prepared").exists()
    process.join(timeout=30)
    assert process.exitcode == 0
    assert open_prepared("digits", tmp_path / "data").complete


def test_the_official_sources_are_whole():
    for name, source in SOURCES.items():
        assert source.name == name
        assert source.homepage.startswith("http")
        for archive in source.archives:
            assert archive.url.endswith("/" + archive.filename)
            lengths = {"md5": 32, "sha1": 40, "sha256": 64}
            assert archive.checksum is None or len(archive.checksum) == lengths[archive.algorithm] + 1 + len(
                archive.algorithm
            )

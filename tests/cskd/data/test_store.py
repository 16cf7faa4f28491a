"""Prepared datasets: written data is read back, damage is detected, nothing is left half-written."""

import errno
import json
from collections import namedtuple
from pathlib import Path
from unittest import mock

import fakes
import numpy as np
import pytest

from cskd.data import folders, store
from cskd.data.sources.base import Listing
from cskd.data.store import open_dataset, write_dataset
from cskd.utils.errors import UserError


def listing(*, sizes=((4, 6), (5, 3), (2, 2)), change: int = 0) -> Listing:
    """Two classes, training images of these sizes. change: added to one pixel."""
    images = [fakes.noise(seed, *size) for seed, size in enumerate(sizes)]
    images[0][0, 0, 0] += change
    return Listing(["a", "b"], [(image, index % 2) for index, image in enumerate(images)], [(images[1], 1)])


def write(folder: Path, content: Listing, **options):
    return write_dataset(folder, folder.name, content, complete=True, source="made up", **options)


def test_written_dataset_is_read_back(tmp_path):
    content, steps = listing(), []
    dataset = write(tmp_path / "set", content, report=lambda *step: steps.append(step))
    assert (dataset.classes, dataset.complete, dataset.short_side) == (("a", "b"), True, 3)
    assert (dataset.train.labels.dtype, dataset.train.labels.tolist()) == (np.int64, [0, 1, 0])
    assert (dataset.train.sizes.dtype, dataset.train.sizes.tolist()) == (np.int32, [[4, 6], [5, 3], [2, 2]])
    assert dataset.train.nbytes == 3 * (24 + 15 + 4)
    for index, (image, _) in enumerate(content.train):
        assert (dataset.train.image(np.int64(index)) == image).all()
    with pytest.raises(ValueError, match="read-only"):
        dataset.train.image(0)[0, 0, 0] = 1
    assert dataset.train.uniform() is None
    assert dataset.test.uniform().shape == (1, 5, 3, 3)
    assert open_dataset(tmp_path / "set", test=False).test is None
    assert (steps[0], steps[-1]) == (("measure images", 0, 4), ("decode test images", 1, 1))


def test_digest_covers_all_content_and_only_content(tmp_path):
    digests = [
        write(tmp_path / "a", listing()).digest,
        write(tmp_path / "a", listing(change=1)).digest,
        write(tmp_path / "a", listing(sizes=((6, 4), (5, 3), (2, 2)))).digest,
        write(tmp_path / "a", Listing(["a", "c"], listing().train, listing().test)).digest,
        write(tmp_path / "a", Listing(["a", "b"], listing().train, [(listing().test[0][0], 0)])).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert write(tmp_path / "other", listing()).digest == digests[0]


def test_decoding_in_threads_keeps_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "THREADS_FROM", 0)
    paths = [fakes.write_image(tmp_path / f"{seed}.png", seed) for seed in range(20)]
    split = write(tmp_path / "set", Listing(["a"], [(path, 0) for path in paths], [(paths[0], 0)])).train
    assert all((split.image(seed) == fakes.noise(seed)).all() for seed in range(20))


def test_class_without_training_images_and_repeated_class_are_refused(tmp_path):
    image = fakes.noise(0)
    with pytest.raises(UserError, match="no training image of b"):
        write(tmp_path / "set", Listing(["a", "b"], [(image, 0)], [(image, 1)]))
    with pytest.raises(UserError, match="several classes are named a"):
        write(tmp_path / "set", Listing(["a", "a"], [(image, 0)], [(image, 0)]))
    assert not any(tmp_path.iterdir())


def test_full_disk_is_reported_before_writing_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("usage", "total used free")(10, 10, 0))
    with pytest.raises(UserError, match=r"no space in .*: 0.00 GB are needed, 0.00 GB are free: .*DATA_DIR"):
        write(tmp_path / "set", listing())
    monkeypatch.undo()
    for code, message in ((errno.ENOSPC, "no space left"), (errno.EROFS, "no permission"), (errno.EIO, "DATA_DIR")):
        with mock.patch("numpy.save", side_effect=OSError(code, "refused")), pytest.raises(UserError, match=message):
            write(tmp_path / "set", listing())
    assert not any(tmp_path.iterdir())


def interrupt(stage, done, total):
    if stage.startswith("decode test"):
        raise KeyboardInterrupt


def test_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    before = write(tmp_path / "set", listing())
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", listing(change=1), report=interrupt)
    rename = Path.rename

    def fail(self, target):
        if self.suffix == ".part":
            raise OSError(errno.EIO, "refused")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(UserError, match="refused"):
        write(tmp_path / "set", listing(change=1))
    assert open_dataset(tmp_path / "set").digest == before.digest
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_leftovers_of_killed_processes_are_removed_and_old_content_is_restored(tmp_path):
    digest = write(tmp_path / "set", listing()).digest
    (tmp_path / "set").rename(tmp_path / ".set.17.old")
    for name in (".set.17.part", ".set.unpacked.18.part", ".other.19.part"):
        (tmp_path / name).mkdir()
    folders.remove_leftovers(tmp_path, "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.19.part", "set"]
    assert open_dataset(tmp_path / "set").digest == digest


def set_field(folder: Path, **changed) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "dataset.json").unlink(),
        lambda folder: (folder / "dataset.json").write_text("{"),
        lambda folder: (folder / "train" / "images.bin").write_bytes(b"short"),
        lambda folder: (folder / "test" / "labels.npy").write_bytes(b""),
        lambda folder: (folder / "train" / "sizes.npy").write_bytes(b"\x93NUMPY broken"),
        lambda folder: np.save(folder / "train" / "labels.npy", np.array([0, 1])),
        lambda folder: np.savez((folder / "train" / "labels.npy").open("wb"), np.array([0, 1])),
        lambda folder: np.save(folder / "train" / "labels.npy", np.array([0, 1, 2])),
        lambda folder: set_field(folder, classes=None),
        lambda folder: set_field(folder, train={"images": 3, "bytes": 1}),
    ],
)
def test_damage_is_reported_with_the_command_that_repairs_it(tmp_path, damage):
    write(tmp_path / "cub200", listing())
    damage(tmp_path / "cub200")
    with pytest.raises(UserError, match=r"cub200.*make data DATASET=cub200$") as caught:
        open_dataset(tmp_path / "cub200")
    assert "\n" not in str(caught.value)

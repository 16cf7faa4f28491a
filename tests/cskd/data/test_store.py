"""The prepared form: what is written, read back, refused, and never left half-written."""

import errno
import json
import shutil
import warnings
from collections import namedtuple
from pathlib import Path

import fakes
import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import default_loader

from cskd.data import store, workspace
from cskd.data.decoding import decode
from cskd.data.sources.listing import Listing
from cskd.data.store import open_dataset, write_dataset
from cskd.utils.errors import UserError


def listing(*, sizes=((4, 6), (5, 3), (2, 2)), change: int = 0) -> Listing:
    """Two classes; the training images have these sizes. change is added to one pixel."""
    images = [fakes.noise(seed, *size) for seed, size in enumerate(sizes)]
    images[0][0, 0, 0] += change
    return Listing(["a", "b"], [(image, index % 2) for index, image in enumerate(images)], [(images[1], 1)])


def write(folder: Path, content: Listing, **options):
    return write_dataset(folder, folder.name, content, complete=True, source="made up", **options)


def entries(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_is_written_is_read_back(tmp_path):
    content = listing()
    dataset = write(tmp_path / "set", content)
    assert (dataset.name, dataset.classes, dataset.source) == ("set", ("a", "b"), "made up")
    assert dataset.complete
    assert dataset.short_side == 3
    assert dataset.train.labels.dtype == np.int64
    assert dataset.train.labels.tolist() == [0, 1, 0]
    assert dataset.train.sizes.dtype == np.int32
    assert dataset.train.sizes.tolist() == [[4, 6], [5, 3], [2, 2]]
    assert dataset.train.nbytes == 3 * (24 + 15 + 4)
    for index, (image, _) in enumerate(content.train):
        assert (dataset.train.image(index) == image).all()
        assert (dataset.train.image(np.int64(index)) == image).all()
    assert dataset.train.uniform() is None
    assert dataset.test.uniform().shape == (1, 5, 3, 3)
    assert entries(tmp_path) == ["set", "set/dataset.json"] + [
        f"set/{split}{name}" for split in ("test", "train") for name in ("", "/images.bin", "/labels.npy", "/sizes.npy")
    ]


def test_images_are_mapped_not_loaded_and_cannot_be_written(tmp_path):
    split = write(tmp_path / "set", listing(sizes=((4, 4), (4, 4)))).train
    assert split.uniform().shape == (2, 4, 4, 3)
    assert np.shares_memory(split.uniform(), split.image(1))
    with pytest.raises(ValueError, match="read-only"):
        split.image(0)[0, 0, 0] = 1


def test_the_digest_is_of_the_content_and_of_all_of_it(tmp_path):
    digests = [
        write(tmp_path / "a", listing()).digest,
        write(tmp_path / "a", listing(change=1)).digest,
        write(tmp_path / "a", listing(sizes=((6, 4), (5, 3), (2, 2)))).digest,
        write(tmp_path / "a", Listing(["a", "c"], listing().train, listing().test)).digest,
        write(tmp_path / "a", Listing(["a", "b"], listing().train, [(listing().test[0][0], 0)])).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert write(tmp_path / "other", listing()).digest == digests[0]


@pytest.mark.parametrize(
    ("mode", "suffixes"),
    {
        "RGB": ".png .jpg .gif .bmp .webp .tif .ppm",
        "L": ".png .jpg .gif .bmp .webp .tif .pgm",
        "P": ".png .gif .bmp .tif",
        "1": ".png .jpg .bmp .tif",
        "CMYK": ".jpg .tif",
        "RGBA": ".png .gif .webp .tif",
        "LA": ".png .tif",
    }.items(),
)
def test_images_of_every_mode_are_decoded_as_torchvision_does(tmp_path, mode, suffixes):
    for suffix in suffixes.split():
        path = fakes.write_image(tmp_path / f"image{suffix}", 5, mode=mode)
        assert (decode(path) == default_loader(str(path))).all(), suffix


def test_an_animation_gives_its_first_frame(tmp_path):
    path = tmp_path / "moving.gif"
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert (decode(path) == (255, 0, 0)).all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bit_greyscale_is_scaled_not_clipped(tmp_path, suffix):
    grey = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / f"deep{suffix}")
    assert decode(tmp_path / f"deep{suffix}").tolist() == [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]


def test_the_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    Image.fromarray(fakes.noise(0, 4, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg").shape == (4, 8, 3)


def test_all_images_that_cannot_be_decoded_are_told_in_one_line(tmp_path):
    whole = fakes.write_image(tmp_path / "images" / "whole.jpg", height=60, width=60)
    truncated = tmp_path / "images" / "truncated.jpg"
    truncated.write_bytes(whole.read_bytes()[:2000])
    text = tmp_path / "images" / "text.png"
    text.write_text("not an image")
    absent = tmp_path / "images" / "absent.png"
    images = [whole, truncated, text, absent]
    with pytest.raises(UserError) as caught:
        write(tmp_path / "out" / "set", Listing(["a"], [(path, 0) for path in images], [(whole, 0)]))
    message = str(caught.value)
    assert "\n" not in message
    assert "set: 3 of 5 images cannot be decoded" in message
    assert f"{text} (not an image)" in message
    assert f"{absent} (missing)" in message
    assert f"{truncated} (" in message
    assert entries(tmp_path / "out") == []


def test_a_decompression_bomb_is_told_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for height in (9, 90):  # above the limit, and above its double: Pillow warns, and refuses
        path = fakes.write_image(tmp_path / f"{height}.png", height=height, width=10)
        with pytest.raises(UserError) as caught:
            write(tmp_path / "set", Listing(["a"], [(path, 0)], [(path, 0)]))
        assert f"{path} (more than 50 pixels)" in str(caught.value)


def test_palettes_with_transparency_give_no_warning(tmp_path):
    path = tmp_path / "palette.png"
    Image.fromarray(fakes.noise(1)).convert("P").save(path, transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path / "set", Listing(["a"], [(path, 0)], [(path, 0)]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Listing(["a"], [], []), "no training images"),
        (Listing(["a"], [(fakes.noise(0), 0)], []), "no test images"),
        (Listing(["a", "b"], [(fakes.noise(0), 0)], [(fakes.noise(0), 1)]), "no training image of b"),
        (Listing(["a", "a"], [(fakes.noise(0), 0)], [(fakes.noise(0), 0)]), "a: more than one class"),
    ],
)
def test_impossible_listings_are_refused_by_name(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        write(tmp_path / "set", content)
    assert entries(tmp_path) == []


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 10, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"no space in .*: 0.00 GB are needed, 0.00 GB are free: .*DATA_DIR"):
        write(tmp_path / "set", listing())
    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "no space left"), (errno.EROFS, "no permission"), (errno.EIO, "DATA_DIR")],
)
def test_a_disk_that_refuses_to_write_is_told_and_nothing_stays(tmp_path, monkeypatch, code, message):
    def refuse(*_, **__):
        raise OSError(code, "refused")

    monkeypatch.setattr(store.np, "save", refuse)
    with pytest.raises(UserError, match=message) as caught:
        write(tmp_path / "set", listing())
    assert "\n" not in str(caught.value)
    assert entries(tmp_path) == []


def test_a_file_in_the_place_of_a_folder_is_told_by_name(tmp_path):
    (tmp_path / "prepared").write_text("")
    with pytest.raises(UserError, match="prepared is not a folder"):
        write(tmp_path / "prepared" / "set", listing())
    with pytest.raises(UserError, match="prepared is not a folder"):
        write(tmp_path / "prepared", listing())
    assert entries(tmp_path) == ["prepared"]


def test_an_interruption_leaves_the_old_content(tmp_path):
    before = write(tmp_path / "set", listing())

    def interrupt(stage, done, total):
        if stage.startswith("decode test"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", listing(change=1), report=interrupt)
    assert open_dataset(tmp_path / "set").digest == before.digest
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_failing_last_step_puts_the_old_content_back(tmp_path, monkeypatch):
    before = write(tmp_path / "set", listing())
    rename = Path.rename

    def refuse_new(self, target):
        if self.suffix == ".part":
            raise OSError(errno.EIO, "refused")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(UserError):
        write(tmp_path / "set", listing(change=1))
    assert open_dataset(tmp_path / "set").digest == before.digest
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_killed_processes_left_is_removed_and_an_old_content_put_back(tmp_path):
    digest = write(tmp_path / "set", listing()).digest
    (tmp_path / "set").rename(tmp_path / ".set.17.old")
    (tmp_path / ".set.17.part").mkdir()
    (tmp_path / ".set.unpacked.18.part").mkdir()
    (tmp_path / ".other.19.part").mkdir()
    workspace.remove_leftovers(tmp_path, "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.19.part", "set"]
    assert open_dataset(tmp_path / "set").digest == digest


def _edit(name, value):
    def edit(folder):
        about = json.loads((folder / "dataset.json").read_text())
        about[name] = value
        (folder / "dataset.json").write_text(json.dumps(about))

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "dataset.json").unlink(),
        lambda folder: (folder / "dataset.json").write_text("{"),
        lambda folder: (folder / "dataset.json").write_text("[]"),
        lambda folder: (folder / "train" / "images.bin").write_bytes(b"short"),
        lambda folder: (folder / "test" / "images.bin").unlink(),
        lambda folder: (folder / "test" / "labels.npy").write_bytes(b""),
        lambda folder: (folder / "train" / "sizes.npy").write_bytes(b"\x93NUMPY broken"),
        lambda folder: np.save(folder / "train" / "labels.npy", np.array([0, 1])),
        lambda folder: np.save(folder / "train" / "labels.npy", np.array([0, 1, 2])),
        lambda folder: np.save(folder / "train" / "labels.npy", np.array([0, 1, None])),
        _edit("classes", None),
        _edit("train", {"images": 3, "bytes": 1}),
        _edit("format", 0),
    ],
)
def test_missing_and_damaged_files_are_told_with_the_remedy(tmp_path, damage):
    write(tmp_path / "cub200", listing())
    damage(tmp_path / "cub200")
    with pytest.raises(UserError) as caught:
        open_dataset(tmp_path / "cub200")
    message = str(caught.value)
    assert message.endswith("make data DATASET=cub200")
    assert "\n" not in message
    assert "cub200" in message


def test_progress_is_told_image_by_image(tmp_path):
    message = []
    write(tmp_path / "set", listing(), report=lambda *step: message.append(step))
    assert message[0] == ("measure images", 0, 4)
    assert message[-1] == ("decode test images", 1, 1)
    assert ("decode train images", 3, 3) in message


def test_many_large_images_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "THREADS_FROM", 0)
    paths = [fakes.write_image(tmp_path / f"{seed}.png", seed) for seed in range(40)]
    split = write(tmp_path / "set", Listing(["a"], [(path, 0) for path in paths], [(paths[0], 0)])).train
    assert all((split.image(seed) == fakes.noise(seed)).all() for seed in range(40))

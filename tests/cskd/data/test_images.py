"""Images of every kind: read as torchvision reads them, or named with the reason in one error."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import fakes
import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import default_loader

from cskd.data.prepare import prepare
from cskd.data.sources.image_folder import image_folder_source
from cskd.utils.errors import UserError


def saved(form: str, mode: str = "RGB", frames: int = 1, side: int = 30, **options) -> bytes:
    """Return an image file of noise."""
    images = [Image.fromarray(fakes.noise(seed, side, side)).convert(mode) for seed in range(frames)]
    animation = {"save_all": True, "append_images": images[1:]} if frames > 1 else {}
    return bytes_of(images[0], form, **animation, **options)


def bytes_of(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format=form, **options)
    return file.getvalue()


def sized(width: int, height: int) -> bytes:
    return bytes_of(Image.new("RGB", (width, height), "teal"))


def grey(kind: type, *values: float, form: str = "TIFF") -> bytes:
    """Return one row of greyscale pixels."""
    return bytes_of(Image.fromarray(np.array([values], kind)), form)


def png(width: int, height: int, rows: bytes, bits: int = 8) -> bytes:
    """Return an RGB file with this header and these rows, which need not fit."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def flipped_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


ROTATED = Image.Exif()
ROTATED[0x0112] = 6
MODES = {"PNG": ("RGB", "L", "1", "LA", "RGBA", "P"), "JPEG": ("RGB", "L", "CMYK"), "TIFF": ("CMYK", "LAB")}
MODES |= {"GIF": ("P",), "PPM": ("L",), "WEBP": ("RGBA",)}
# The content of files by name. All are read as torchvision reads them.
SOUND = {f"{mode}.{form}": saved(form, mode) for form, modes in MODES.items() for mode in modes}
SOUND |= {f"frames.{form}": saved(form, frames=3) for form in ("GIF", "PNG", "WEBP", "TIFF")}
SOUND |= {
    "several pictures.jpg": saved("MPO", frames=3),
    "progressive.jpeg": saved("JPEG", progressive=True),
    "palette-transparent.png": saved("PNG", "P", transparency=bytes(range(256))),
    "palette-one-transparent.png": saved("PNG", "P", transparency=3),
    "rotated.jpg": saved("JPEG", exif=ROTATED),
    "dot.png": sized(1, 1),
    "wide.png": sized(30_000, 150),
    "high.png": sized(150, 30_000),
    "png named.jpg": saved("PNG"),
    "jpeg named.png": saved("JPEG"),
    "gif named.bmp": saved("GIF", "P"),
    "CAPITALS.PNG": saved("PNG"),
    "ünï cødé 花.png": saved("PNG"),
    "new\nline.png": saved("PNG"),
    "deep-rgb.png": png(2, 1, b"\0" + struct.pack(">6H", 0, 257, 65535, 32896, 514, 0), bits=16),
}
DEEP = [0, 257, 32896, 65535]  # torchvision's loader clips all but the first at 255
SCALED = {f"deep.{form}": grey(np.uint16, *DEEP, form=form) for form in ("PNG", "TIFF", "PPM")}
SCALED |= {"deeper.tif": grey(np.int32, *DEEP)}
# name: (content, reason in the error)
FAULTY = {
    "empty.png": (b"", "not an image"),
    "page.jpg": (b"<html><body>404</body></html>", "not an image"),
    "postscript.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
    "zeros.png": (bytes(4096), "not an image"),
    "no-width.png": (png(0, 5, b""), "not an image"),
    "flipped.png": (flipped_bit(saved("PNG")), "broken"),
    "bomb.png": (png(30_000, 30_000, b""), "more than 89,478,485 pixels"),
    "small-bomb.png": (png(30_000, 3_000, b""), "more than 89,478,485 pixels"),
    "liar.png": (png(9_000, 300, b"\0" * 100), "truncated"),
    "strip.png": (sized(30_000, 1), "30000 x 1 px"),
    "pole.png": (sized(1, 201), "1 x 201 px"),
    "float.tif": (grey(np.float32, 0.0, 0.5, 1.0), "floating-point pixels"),
    "too-deep.tif": (grey(np.int32, 0, 65536), "more than 16 bits"),
    "negative.tif": (grey(np.int32, -1, 5), "more than 16 bits"),
}
for form in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
    content = saved(form, side=60)
    for percent in (2, 30, 60, 95):
        FAULTY[f"truncated {percent}.{form}"] = (content[: len(content) * percent // 100], "")


@pytest.fixture
def flowers(tmp_path):
    """An image folder with a sound training image and a sound test image."""
    folder = tmp_path / "data" / "flowers"
    for split in ("train", "test"):
        fakes.write_image(folder / split / "rose" / "sound.png")
    return folder


def prepare_flowers(flowers: Path):
    return prepare("flowers", flowers.parent, source=image_folder_source("flowers", "flowers"))


def test_sound_images_are_read_as_by_torchvision_and_deep_greyscale_is_scaled(flowers):
    folder = flowers / "train" / "rose"
    for name, content in (SOUND | SCALED).items():
        (folder / name).write_bytes(content)
    dataset = prepare_flowers(flowers)
    assert len(dataset.train) == 1 + len(SOUND) + len(SCALED)
    for index, path in enumerate(sorted(folder.iterdir())):
        with warnings.catch_warnings(action="ignore"):
            expected = default_loader(str(path))
        if path.name in SCALED:
            expected = np.repeat([[[0], [1], [128], [255]]], 3, axis=2)
        assert np.array_equal(dataset.train.image(index), expected), path.name


def test_one_error_names_every_faulty_image_and_nothing_is_prepared(flowers):
    paths = {}
    for number, (name, (content, _)) in enumerate(FAULTY.items()):
        paths[name] = flowers / ("train", "test")[number % 2] / "rose" / name
        paths[name].write_bytes(content)
    with pytest.raises(UserError) as caught:
        prepare_flowers(flowers)
    message = str(caught.value)
    assert f"{len(FAULTY)} of {len(FAULTY) + 2} images cannot be decoded" in message
    assert "\n" not in message
    assert "sound.png" not in message
    for name, path in paths.items():
        reason = message.partition(f"{path} (")[2].partition(")")[0]
        assert reason and FAULTY[name][1] in reason, name
    assert list((flowers.parent / "prepared").iterdir()) == []


def test_one_error_names_every_misplaced_file_and_folder(flowers):
    strays = [flowers / "train" / "stray.png", flowers / "test" / "stray.jpg"]
    folders = [flowers / split / name for split, name in (("test", "weed"), ("test", "moss"), ("train", "lily"))]
    for path in strays:
        fakes.write_image(path)
    for path in folders:
        path.mkdir()
    with pytest.raises(UserError) as caught:
        prepare_flowers(flowers)
    for path in strays + folders:
        assert f"{path}" in str(caught.value)
    assert not (flowers.parent / "prepared").exists()

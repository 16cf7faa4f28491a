"""Images of every kind: read as torchvision reads them, or named with the reason in one error."""

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

FAULT = "images: damaged, unusual, bombs"
COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)


def png(path: Path, width: int, height: int, bits: int, colour: int, rows: bytes) -> None:
    """A PNG with this header and these rows. colour: 0 grey, 2 RGB, 4 grey with alpha, 6 RGB with alpha."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def saved(mode: str, form: str, **options):
    def make(path: Path) -> None:
        Image.fromarray(fakes.noise(3, 20, 30)).convert(mode).save(path, format=form, **options)

    return make


def animated(form: str):
    def make(path: Path) -> None:
        frames = [Image.fromarray(fakes.noise(seed, 20, 30)) for seed in (1, 2, 3)]
        frames[0].save(path, format=form, save_all=True, append_images=frames[1:])

    return make


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(fakes.noise(4, 20, 30)).save(path, format="JPEG", exif=exif)


def sized(width: int, height: int):
    return lambda path: Image.new("RGB", (width, height), "teal").save(path, format="PNG")


def deep(kind: type, *values: float, form: str = "TIFF"):
    return lambda path: Image.fromarray(np.array([values], kind)).save(path, format=form)


def cut(form: str, part: float):
    """An image truncated after this part."""

    def make(path: Path) -> None:
        Image.fromarray(fakes.noise(5, 60, 60)).save(path, format=form)
        content = path.read_bytes()
        path.write_bytes(content[: int(part * len(content))])

    return make


def flipped(path: Path) -> None:
    saved("RGB", "PNG")(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def written(content: bytes):
    return lambda path: path.write_bytes(content)


# name: maker. All are read as torchvision reads them.
SOUND = {
    "rgb.png": saved("RGB", "PNG"),
    "rgb.jpg": saved("RGB", "JPEG"),
    "progressive.jpeg": saved("RGB", "JPEG", progressive=True),
    "several pictures.jpg": animated("MPO"),
    "cmyk.jpg": saved("CMYK", "JPEG"),
    "cmyk.tif": saved("CMYK", "TIFF"),
    "lab.tif": saved("LAB", "TIFF"),
    "grey.jpg": saved("L", "JPEG"),
    "grey.png": saved("L", "PNG"),
    "grey.pgm": saved("L", "PPM"),
    "black-and-white.png": saved("1", "PNG"),
    "grey-with-alpha.png": saved("LA", "PNG"),
    "alpha.png": saved("RGBA", "PNG"),
    "alpha.webp": saved("RGBA", "WEBP", lossless=True),
    "palette.png": saved("P", "PNG"),
    "palette.gif": saved("P", "GIF"),
    "palette-transparent.png": saved("P", "PNG", transparency=bytes(range(256))),
    "palette-one-transparent.png": saved("P", "PNG", transparency=3),
    "animated.gif": animated("GIF"),
    "animated.png": animated("PNG"),
    "animated.webp": animated("WEBP"),
    "pages.tiff": animated("TIFF"),
    "rotated.jpg": rotated,
    "dot.png": sized(1, 1),
    "wide.png": sized(30_000, 150),
    "high.png": sized(150, 30_000),
    "png named.jpg": saved("RGB", "PNG"),
    "jpeg named.png": saved("RGB", "JPEG"),
    "gif named.bmp": saved("P", "GIF"),
    "CAPITALS.PNG": saved("RGB", "PNG"),
    "ünï cødé 花.png": saved("RGB", "PNG"),
    "new\nline.png": saved("RGB", "PNG"),
    "deep-rgb.png": lambda path: png(path, 2, 1, 16, 2, b"\0" + struct.pack(">6H", 0, 257, 65535, 32896, 514, 0)),
}
DEEP = [0, 257, 32896, 65535]  # torchvision's loader clips all but the first at 255
SCALED = {
    "deep.png": deep(np.uint16, *DEEP, form="PNG"),
    "deep.tif": deep(np.uint16, *DEEP),
    "deep.pgm": deep(np.uint16, *DEEP, form="PPM"),
    "deeper.tif": deep(np.int32, *DEEP),
}
CUT_FORMATS = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "BMP": "bmp", "WEBP": "webp", "TIFF": "tif", "PPM": "ppm"}
# name: (maker, reason in the error)
FAULTY = {
    "empty.png": (written(b""), "not an image"),
    "text.jpg": (written(b"this is text"), "not an image"),
    "page.jpg": (written(b"<html><body>404</body></html>"), "not an image"),
    "program.png": (written(b"\x7fELF" + bytes(500)), "not an image"),
    "postscript.png": (written(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"), "not an image"),
    "drawing.png": (written(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "not an image"),
    "zeros.png": (written(bytes(4096)), "not an image"),
    "no-width.png": (lambda path: png(path, 0, 5, 8, 2, b""), "not an image"),
    "flipped.png": (flipped, "broken"),
    "bomb.png": (lambda path: png(path, 30_000, 30_000, 8, 2, b""), "more than 89,478,485 pixels"),
    "small-bomb.png": (lambda path: png(path, 30_000, 3_000, 8, 2, b""), "more than 89,478,485 pixels"),
    "liar.png": (lambda path: png(path, 9_000, 300, 8, 2, b"\0" * 100), "truncated"),
    "strip.png": (sized(30_000, 1), "30000 x 1 px"),
    "pole.png": (sized(1, 201), "1 x 201 px"),
    "float.tif": (deep(np.float32, 0.0, 0.5, 1.0), "floating-point pixels"),
    "too-deep.tif": (deep(np.int32, 0, 65536), "more than 16 bits"),
    "negative.tif": (deep(np.int32, -1, 5), "more than 16 bits"),
    **{
        f"cut-{round(100 * part)}.{ending}": (cut(form, part), "")
        for form, ending in CUT_FORMATS.items()
        for part in (0.02, 0.3, 0.6, 0.95)
    },
}


@pytest.fixture
def flowers(tmp_path):
    """An image folder with a sound training image and a sound test image."""
    folder = tmp_path / "data" / "flowers"
    for split in ("train", "test"):
        (folder / split / "rose").mkdir(parents=True)
        Image.fromarray(COLOURS).save(folder / split / "rose" / "sound.png")
    return folder


def prepare_flowers(flowers: Path):
    return prepare("flowers", flowers.parent, source=image_folder_source("flowers", "flowers"))


@pytest.mark.fault(FAULT)
def test_sound_images_are_read_as_by_torchvision_and_deep_greyscale_is_scaled(flowers, tally):
    folder, lost = flowers / "train" / "rose", []
    for name, make in (SOUND | SCALED).items():
        make(folder / name)
    dataset = prepare_flowers(flowers)
    for index, path in enumerate(sorted(folder.iterdir())):
        if path.name in SCALED:
            expected = np.array([[[0] * 3, [1] * 3, [128] * 3, [255] * 3]])
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Palette images with Transparency", UserWarning)
                expected = default_loader(str(path))
        with tally:
            if not np.array_equal(dataset.train.image(index), expected):
                lost.append(path.name)
    assert not lost


@pytest.mark.fault(FAULT)
def test_one_error_names_every_faulty_image_and_nothing_is_prepared(flowers, tally):
    paths, lost = {}, []
    for number, (name, (make, _)) in enumerate(FAULTY.items()):
        paths[name] = flowers / ("train", "test")[number % 2] / "rose" / name
        make(paths[name])
    with pytest.raises(UserError) as caught:
        prepare_flowers(flowers)
    message = str(caught.value)
    assert f"{len(FAULTY)} of {len(FAULTY) + 2} images cannot be decoded" in message
    assert "\n" not in message
    assert "sound.png" not in message
    for name, path in paths.items():
        with tally:
            reason = message.partition(f"{path} (")[2].partition(")")[0]
            if not reason or FAULTY[name][1] not in reason:
                lost.append(f"{name}: {reason}")
    assert not lost
    assert list((flowers.parent / "prepared").iterdir()) == []
    for path in paths.values():
        path.unlink()
    assert len(prepare_flowers(flowers).train) == 1


@pytest.mark.fault(FAULT)
def test_one_error_names_every_misplaced_file_and_folder(flowers, tally):
    strays = [flowers / "train" / "stray.png", flowers / "test" / "stray.jpg"]
    untrained = [flowers / "test" / "weed", flowers / "test" / "moss"]
    empty = [flowers / "train" / "lily", flowers / "train" / "tulip"]
    for path in strays:
        Image.fromarray(COLOURS).save(path)
    for path in untrained + empty:
        path.mkdir()
    with pytest.raises(UserError) as caught:
        prepare_flowers(flowers)
    for path in strays + untrained + empty:
        with tally:
            assert f"{path}" in str(caught.value)
    assert not (flowers.parent / "prepared").exists()

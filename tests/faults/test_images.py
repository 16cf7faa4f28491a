"""Images of every kind, sound and not: read as torchvision reads them, or refused by name, all at once."""

import shutil
import struct
import warnings
import zlib
from pathlib import Path

import fakes
import numpy as np
import pytest
from faults.own_tree import OwnTree
from PIL import Image
from torchvision.datasets.folder import default_loader

from cskd.data.prepare import open_prepared, prepare
from cskd.data.sources.image_folder import image_folder_source
from cskd.utils.errors import UserError

FAULT = "images: damaged, unusual, bombs"
RECIPE = "data: {reader: image-folder, folder: flowers}\ninputs: {image_size: 32, train: resized-crop}\n"
COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)


def png(path: Path, width: int, height: int, bits: int, colour: int, rows: bytes) -> None:
    """A PNG that says of itself what it is told to. colour: 0 grey, 2 RGB, 4 grey with alpha, 6 RGB with alpha."""

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
    """Truncated after a part of it."""

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


# name -> how it is made; all are to be read as torchvision reads them
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
DEEP = [0, 257, 32896, 65535]  # torchvision's loader makes 255 of all but the first
SCALED = {
    "deep.png": deep(np.uint16, *DEEP, form="PNG"),
    "deep.tif": deep(np.uint16, *DEEP),
    "deep.pgm": deep(np.uint16, *DEEP, form="PPM"),
    "deeper.tif": deep(np.int32, *DEEP),
}
# name -> (how it is made, what is said of it)
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
        for form, ending in (
            ("PNG", "png"),
            ("JPEG", "jpg"),
            ("GIF", "gif"),
            ("BMP", "bmp"),
            ("WEBP", "webp"),
            ("TIFF", "tif"),
            ("PPM", "ppm"),
        )
        for part in (0.02, 0.3, 0.6, 0.95)
    },
}


@pytest.fixture
def flowers(tmp_path):
    """The user's folder of images, with a sound test image and a sound training image."""
    folder = tmp_path / "data" / "flowers"
    for split in ("train", "test"):
        (folder / split / "rose").mkdir(parents=True)
        Image.fromarray(COLOURS).save(folder / split / "rose" / "sound.png")
    return folder


def prepared(flowers: Path):
    return prepare("flowers", flowers.parent, source=image_folder_source("flowers", "flowers"))


@pytest.mark.fault(FAULT)
def test_sound_images_are_read_as_torchvision_reads_them(flowers, tally):
    lost = []
    for name, make in SOUND.items():
        path = flowers / "train" / "rose" / name
        make(path)
        shutil.rmtree(flowers.parent / "prepared", ignore_errors=True)
        try:
            with tally:
                dataset = prepared(flowers)
                at = sorted(entry.name for entry in path.parent.iterdir()).index(name)
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "Palette images with Transparency", UserWarning)
                    expected = default_loader(str(path))
                assert np.array_equal(dataset.train.image(at), expected)
        except (AssertionError, UserError) as error:
            lost.append(f"{name}: {error}")
        path.unlink()
    assert not lost


@pytest.mark.fault(FAULT)
def test_16_bit_greyscale_is_scaled(flowers, tally):
    for name, make in SCALED.items():
        make(flowers / "train" / "rose" / name)
    dataset = prepared(flowers)
    for at in range(len(SCALED)):
        with tally:
            assert dataset.train.image(at).tolist() == [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]


def check_told(tally, faulty: dict[str, Path], message: str, data: Path) -> None:
    """Every faulty image is told with its reason in one line, and nothing is left of the preparation."""
    lost = []
    for name, path in faulty.items():
        try:
            with tally:
                assert f"{path} (" in message
                assert FAULTY[name][1] in message.split(f"{path} (")[1].split(")", maxsplit=1)[0]
        except AssertionError as error:
            lost.append(f"{name}: {error}")
    assert not lost
    assert "\n" not in message
    assert "sound.png" not in message
    assert [entry.name for entry in data.rglob("*") if "flowers" not in entry.relative_to(data).parts[0]] in (
        [],
        ["prepared"],
    )


def make_faulty(flowers: Path) -> dict[str, Path]:
    paths = {}
    for number, (name, (make, _)) in enumerate(FAULTY.items()):
        paths[name] = flowers / ("train", "test")[number % 2] / "rose" / name
        make(paths[name])
    return paths


@pytest.mark.fault(FAULT)
def test_every_faulty_image_is_told_at_once_and_nothing_is_prepared(flowers, tally):
    faulty = make_faulty(flowers)
    with pytest.raises(UserError) as caught:
        prepared(flowers)
    assert f"{len(FAULTY)} of {len(FAULTY) + 2} images cannot be decoded" in str(caught.value)
    check_told(tally, faulty, str(caught.value), flowers.parent)


@pytest.mark.fault(FAULT)
def test_the_command_tells_every_faulty_image_and_goes_on_once_they_are_gone(flowers, tmp_path, tally):
    place = OwnTree(tmp_path)
    (place.recipes / "flowers.yaml").write_text(RECIPE)
    faulty = make_faulty(flowers)
    for name, make in SOUND.items():
        make(flowers / "train" / "rose" / name)
    status, output, errors = place.run("experiments data", "flowers")
    assert (status, errors.count("\n"), "Traceback" in output) == (2, 1, False)
    check_told(tally, faulty, errors.rstrip("\n"), flowers.parent)
    for path in faulty.values():
        path.unlink()
    with tally:
        status, _, errors = place.run("experiments data", "flowers")
        assert (status, errors) == (0, "")
        assert len(open_prepared("flowers", flowers.parent).train) == len(SOUND) + 1


@pytest.mark.fault(FAULT)
def test_what_stands_in_the_wrong_place_is_told_at_once(flowers, tally):
    strays = [flowers / "train" / "stray.png", flowers / "test" / "stray.jpg"]
    strangers = [flowers / "test" / "weed", flowers / "test" / "moss"]
    empty = [flowers / "train" / "lily", flowers / "train" / "tulip"]
    for path in strays:
        Image.fromarray(COLOURS).save(path)
    for path in strangers + empty:
        path.mkdir()
    with pytest.raises(UserError) as caught:
        prepared(flowers)
    for path in strays + strangers + empty:
        with tally:
            assert str(path) in str(caught.value)
    assert not (flowers.parent / "prepared").exists()

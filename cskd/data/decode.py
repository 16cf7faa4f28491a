"""Decode image files into 8-bit RGB."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from cskd.data.sources.base import ImageFile

# The formats that Pillow tries, whatever the file's suffix is. Other formats are unsafe: PostScript starts a program.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_ASPECT = 200  # long side to short; the test transform would need gigabytes for a longer strip


@dataclass(frozen=True)
class ImageProblem:
    """An image that cannot be used, and the reason."""

    image: str
    reason: str

    def __str__(self) -> str:
        return f"{self.image} ({self.reason})"


def measure(source: Path | np.ndarray) -> tuple[int, int] | ImageProblem:
    """Return (height, width) in pixels, read from the file's header only."""
    if isinstance(source, np.ndarray):
        return source.shape[:2]
    try:
        with Image.open(source, formats=FORMATS) as image:
            _check_aspect(image)
            return image.height, image.width
    except Exception as error:  # each format's decoder raises its own exceptions
        return ImageProblem(str(source), _reason(error))


def decode(source: Path | np.ndarray) -> np.ndarray | ImageProblem:
    """Return (height, width, 3) uint8, the image of ``open_rgb``."""
    if isinstance(source, np.ndarray):
        return source
    try:
        return np.asarray(open_rgb(source))
    except Exception as error:  # as in measure
        return ImageProblem(str(source), _reason(error))


def read_and_decode(source: ImageFile) -> tuple[bytes, np.ndarray] | ImageProblem:
    """Return (content of the file, (height, width, 3) uint8)."""
    try:
        content = source.read_bytes()
        image = open_rgb(io.BytesIO(content))
        _check_aspect(image)
        return content, np.asarray(image)
    except Exception as error:  # as in measure
        return ImageProblem(str(source), _reason(error))


def file_bytes(source: ImageFile) -> int:
    """Return the length of the file; 0 if it is missing, which ``read_and_decode`` reports."""
    if isinstance(source, Path):
        return source.stat().st_size if source.exists() else 0
    return source.length


def open_rgb(file: Path | BinaryIO) -> Image.Image:
    """Return the image of a file as RGB, like torchvision's default loader: Pillow's ``convert("RGB")``.

    - The EXIF orientation is ignored, as in the paper's released code.
    - An animation gives its first frame.
    - 16-bit greyscale is scaled, because ``convert`` would clip it at 255.

    Raises:
        ValueError: for greyscale of more than 16 bits and for floating-point pixels, whose white is unknown.
        Exception: of Pillow's decoders, for a damaged file.
    """
    with Image.open(file, formats=FORMATS) as image:
        if image.mode == "F":
            raise ValueError("floating-point pixels")
        if image.mode.startswith("I"):
            grey = np.asarray(image).astype(np.float64)
            if grey.min() < 0 or grey.max() > 65535:
                raise ValueError("greyscale of more than 16 bits")
            return Image.fromarray(np.repeat(np.rint(grey / 257).astype(np.uint8)[:, :, None], 3, axis=2))
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")


def _check_aspect(image: Image.Image) -> None:
    if max(image.size) > MAX_ASPECT * min(image.size):
        size = f"{image.width} x {image.height} px"
        raise ValueError(f"{size}, one side more than {MAX_ASPECT} times the other")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    return " ".join(str(error).split()) or type(error).__name__

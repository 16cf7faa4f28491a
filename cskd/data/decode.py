"""Decode image files into arrays of 8-bit RGB."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from cskd.data.sources.base import ImageSource

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


def measure(source: ImageSource) -> tuple[int, int] | ImageProblem:
    """Return (height, width) in pixels, read from the file's header only."""
    if isinstance(source, np.ndarray):
        return source.shape[:2]
    try:
        with Image.open(source, formats=FORMATS) as image:
            if max(image.size) > MAX_ASPECT * min(image.size):
                size = f"{image.width} x {image.height} px"
                return ImageProblem(str(source), f"{size}, one side more than {MAX_ASPECT} times the other")
            return image.height, image.width
    except Exception as error:  # each format's decoder raises its own exceptions
        return ImageProblem(str(source), _reason(error))


def decode(source: ImageSource) -> np.ndarray | ImageProblem:
    """Return (height, width, 3) uint8, RGB, like torchvision's default loader: Pillow's ``convert("RGB")``.

    - The EXIF orientation is ignored, as in the paper's released code.
    - An animation gives its first frame.
    - 16-bit greyscale is scaled, because ``convert`` would clip it at 255.
    - Greyscale of more than 16 bits and floating-point pixels are an ImageProblem: their white is unknown.
    """
    if isinstance(source, np.ndarray):
        return source
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.mode == "F":
                return ImageProblem(str(source), "floating-point pixels")
            if image.mode.startswith("I"):
                grey = np.asarray(image).astype(np.float64)
                if grey.min() < 0 or grey.max() > 65535:
                    return ImageProblem(str(source), "greyscale of more than 16 bits")
                return np.repeat(np.rint(grey / 257).astype(np.uint8)[:, :, None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # as in measure
        return ImageProblem(str(source), _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    return " ".join(str(error).split()) or type(error).__name__

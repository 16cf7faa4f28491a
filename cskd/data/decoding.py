"""From an image file to an array of 8-bit RGB, many at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from cskd.data.sources.listing import ImageSource

# What Pillow may take a file for, whatever its name says: the formats of listing.EXTENSIONS. Others are not tried:
# one starts a program (PostScript).
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_ASPECT = 200  # long side to short: the test transform would make gigabytes of a longer strip

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Problem:
    """An image that cannot be used."""

    image: str
    reason: str

    def __str__(self) -> str:
        return f"{self.image} ({self.reason})"


def measure(source: ImageSource) -> tuple[int, int] | Problem:
    """(height, width) in pixels; of a file only the header is read."""
    if isinstance(source, np.ndarray):
        return source.shape[:2]
    try:
        with Image.open(source, formats=FORMATS) as image:
            if max(image.size) > MAX_ASPECT * min(image.size):
                size = f"{image.width} x {image.height} px"
                return Problem(str(source), f"{size}, one side more than {MAX_ASPECT} times the other")
            return image.height, image.width
    except Exception as error:  # decoders of a dozen formats, each with its own exceptions
        return Problem(str(source), _reason(error))


def decode(source: ImageSource) -> np.ndarray | Problem:
    """(height, width, 3) uint8, RGB.

    As torchvision's default loader does: Pillow's ``convert("RGB")``, and no rotation by the EXIF
    orientation, which the released code of the paper does not apply either. An animation gives its first
    frame. 16-bit greyscale, which ``convert`` would clip at 255, is scaled; brighter pixels, and floating-point
    ones, have no white that is known and are a problem.
    """
    if isinstance(source, np.ndarray):
        return source
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.mode == "F":
                return Problem(str(source), "floating-point pixels")
            if image.mode.startswith("I"):
                grey = np.asarray(image).astype(np.float64)
                if grey.min() < 0 or grey.max() > 65535:
                    return Problem(str(source), "greyscale of more than 16 bits")
                return np.repeat(np.rint(grey / 257).astype(np.uint8)[:, :, None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # as above
        return Problem(str(source), _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    return " ".join(str(error).split()) or type(error).__name__


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """``map`` over threads; few results wait at a time, so that memory stays bounded."""
    if workers == 1:
        yield from map(function, items)
        return
    waiting = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when interrupted
        pool.shutdown(cancel_futures=True)

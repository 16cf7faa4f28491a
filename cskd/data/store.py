"""Prepared datasets: decoded images in one file a split, memory-mapped."""

import datetime
import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cskd.data.decoding import Problem, decode, in_order, measure
from cskd.data.sources.listing import Labelled, Listing, some
from cskd.data.workspace import Report, replaced_folder, require_free, silent
from cskd.utils.errors import UserError

FORMAT = 1  # of the files below; raise it when they change
SPLITS = ("train", "test")
THREADS_FROM = 3 * 96 * 96  # bytes of the average image


class ImageSplit:
    """The decoded images of one split, memory-mapped.

    pixels: uint8 (total,), all images one after the other, each (height, width, 3) in C order.
    labels: int64 (N,). sizes: int32 (N, 2), height and width in pixels.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, sizes: np.ndarray):
        self.labels, self.sizes = labels, sizes
        self._pixels = pixels
        self._ends = np.cumsum(_bytes_of(sizes))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        return self._pixels.nbytes

    def image(self, index: int) -> np.ndarray:
        """(height, width, 3) uint8, RGB: a read-only view of the file."""
        height, width = self.sizes[index]
        end = self._ends[index]
        return self._pixels[end - 3 * int(height) * int(width) : end].reshape(height, width, 3)

    def uniform(self) -> np.ndarray | None:
        """All images as one view (N, height, width, 3) uint8, or None when their sizes differ."""
        if (self.sizes != self.sizes[0]).any():
            return None
        return self._pixels.reshape(len(self), *self.sizes[0], 3)


class JoinedSplit:
    """Splits one after the other, with the interface of ImageSplit; their pixels stay where they are.

    splits: of one kind, of several datasets. first: the class that each split's class 0 becomes.
    """

    def __init__(self, splits: list[ImageSplit], first: list[int]):
        self.splits = splits
        self.labels = np.concatenate([split.labels + label for split, label in zip(splits, first, strict=True)])
        self.sizes = np.concatenate([split.sizes for split in splits])
        self._ends = np.cumsum([len(split) for split in splits])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        return sum(split.nbytes for split in self.splits)

    def image(self, index: int) -> np.ndarray:
        """(height, width, 3) uint8, RGB: a read-only view of a split's file."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.splits[number].image(index - self._ends[number] + len(self.splits[number]))

    def uniform(self) -> np.ndarray | None:
        """All images (N, height, width, 3) uint8, a copy, or None when their sizes differ."""
        if (self.sizes != self.sizes[0]).any():
            return None
        return np.concatenate([split.uniform() for split in self.splits])


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset, as ``open_dataset`` returns it, or several merged into one."""

    name: str
    classes: tuple[str, ...]
    train: ImageSplit | JoinedSplit
    test: ImageSplit | JoinedSplit | None  # None: was not opened
    digest: str  # SHA-256 over the classes and over both splits' labels, sizes and pixels
    complete: bool  # the official numbers of images hold
    source: str  # what was read, and how it was checked
    short_side: int  # pixels: the median short side of the training images; merged: of the part with the smallest
    domains: tuple[str, ...] | None = None  # merged: the part that each class comes from

    def domains_of(self, classes: tuple[str, ...]) -> tuple[str, ...] | None:
        """The domain of each of these classes of the dataset; None where it has no domains."""
        if self.domains is None:
            return None
        domain_of = dict(zip(self.classes, self.domains, strict=True))
        return tuple(domain_of[label] for label in classes)


def open_dataset(folder: Path, *, test: bool = True) -> Dataset:
    """The dataset prepared in ``folder``. Raises UserError if it is missing or damaged.

    The files' sizes are checked against ``dataset.json``; the pixels are not read. test: False leaves the test
    set's files alone, for whoever must not have seen them.
    """
    remedy = f"make data DATASET={folder.name}"
    try:
        about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise UserError(f"{folder} was prepared by another version: prepare it again with {remedy}")
        return Dataset(
            name=about["name"],
            classes=tuple(about["classes"]),
            train=_open_split(folder / "train", about["train"], len(about["classes"])),
            test=_open_split(folder / "test", about["test"], len(about["classes"])) if test else None,
            digest=about["digest"],
            complete=about["complete"],
            source=about["source"],
            short_side=about["short_side"],
        )
    except FileNotFoundError as error:
        raise UserError(f"{folder.name} is not prepared ({error.filename} is missing): {remedy}") from error
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} is damaged ({reason}): prepare it again with {remedy}") from error


def _open_split(folder: Path, about: dict[str, int], num_classes: int) -> ImageSplit:
    labels = np.load(folder / "labels.npy", allow_pickle=False)
    sizes = np.load(folder / "sizes.npy", allow_pickle=False)
    path = folder / "images.bin"
    expected = {"labels.npy": (about["images"],), "sizes.npy": (about["images"], 2)}
    for name, array in (("labels.npy", labels), ("sizes.npy", sizes)):
        if array.shape != expected[name]:
            raise ValueError(f"{folder / name} has shape {array.shape}, not {expected[name]}")
    if not len(labels) or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"{folder / 'labels.npy'} has labels outside 0 to {num_classes - 1}")
    total = int(_bytes_of(sizes).sum())
    if path.stat().st_size != total or about["bytes"] != total:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, not {total:,}")
    # a plain array over the map: slicing np.memmap itself costs microseconds an image
    return ImageSplit(np.asarray(np.memmap(path, np.uint8, mode="r")), labels, sizes)


def _bytes_of(sizes: np.ndarray) -> np.ndarray:
    return 3 * sizes.astype(np.int64).prod(axis=1)


def write_dataset(
    folder: Path, name: str, listing: Listing, *, complete: bool, source: str, report: Report | None = None
) -> Dataset:
    """Decode a listing into ``folder``, in place of what was there, and open it.

    Written beside the folder and renamed when whole: an error or Ctrl-C leaves the old content or nothing.
    Raises UserError for an impossible listing, for images that cannot be decoded (all of them in one
    message), and for a folder that cannot be written or has no space.
    """
    report = report or silent
    listing.check(name)
    splits = dict(zip(SPLITS, (listing.train, listing.test), strict=True))
    with warnings.catch_warnings():
        # Pillow warns of a huge image, and refuses only one twice as large: here, either is a problem
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # torchvision's loader ignores a palette's transparency as well
        warnings.filterwarnings("ignore", "Palette images with Transparency", UserWarning)
        needed, problems = _measure(listing.train + listing.test, report)
        require_free(folder, needed)
        mean = needed / len(listing.train + listing.test)
        # small images spend their time in Python, where threads only get into each other's way
        workers = min(16, os.cpu_count() or 1) if mean > THREADS_FROM else 1
        with replaced_folder(folder) as aside:
            digest = hashlib.sha256(json.dumps(listing.classes).encode())
            about = {}
            for split, entries in splits.items():
                progress = _Progress(f"decode {split} images", len(entries), report)
                about[split] = _write_split(
                    aside / split, entries, digest, problems, progress=progress, workers=workers
                )
            if problems:
                unique = list({problem.image: problem for problem in problems}.values())
                raise UserError(
                    f"{name}: {len(unique):,} of {len(listing.train) + len(listing.test):,} images cannot be "
                    f"decoded: {some(unique, len(unique))}: put sound copies in their place"
                )
            sizes = np.load(aside / "train" / "sizes.npy", allow_pickle=False)
            about |= {
                "format": FORMAT,
                "name": name,
                "classes": listing.classes,
                "digest": digest.hexdigest(),
                "complete": complete,
                "source": source,
                "short_side": int(np.median(sizes.min(axis=1))),
                "prepared": datetime.datetime.now(datetime.UTC).date().isoformat(),
            }
            (aside / "dataset.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return open_dataset(folder)


class _Progress:
    """Counts images, and reports now and then: a report costs more than a small image."""

    def __init__(self, stage: str, total: int, report: Report):
        self.stage, self.total, self.report, self.done = stage, total, report, 0
        report(stage, 0, total)

    def step(self) -> None:
        self.done += 1
        if self.done % 100 == 0 or self.done == self.total:
            self.report(self.stage, self.done, self.total)


def _measure(entries: list[Labelled], report: Report) -> tuple[int, list[Problem]]:
    """The bytes that the decoded images will take, from their headers, and what is wrong with headers."""
    total, problems = 0, []
    progress = _Progress("measure images", len(entries), report)
    for size in (measure(image) for image, _ in entries):
        if isinstance(size, Problem):
            problems.append(size)
        else:
            total += 3 * size[0] * size[1]
        progress.step()
    return total, problems


def _write_split(
    folder: Path,
    entries: list[Labelled],
    digest: Any,
    problems: list[Problem],
    *,
    progress: _Progress,
    workers: int,
) -> dict[str, int]:
    """Write one split, add it to the digest (a hashlib object) and what cannot be decoded to the problems.

    Once there is a problem nothing more is written, but the rest is still tried: all are told at once.
    """
    folder.mkdir()
    sizes = np.zeros((len(entries), 2), "<i4")
    labels = np.array([label for _, label in entries], "<i8")
    pixels = hashlib.sha256()
    written = 0
    with (folder / "images.bin").open("wb") as file:
        images = in_order(decode, (image for image, _ in entries), workers)
        for index, image in enumerate(images):
            if isinstance(image, Problem):
                problems.append(image)
            elif not problems:
                content = np.ascontiguousarray(image)
                sizes[index] = content.shape[:2]
                pixels.update(content)
                written += file.write(content)
            progress.step()
    np.save(folder / "labels.npy", labels, allow_pickle=False)
    np.save(folder / "sizes.npy", sizes, allow_pickle=False)
    for part in (labels.tobytes(), sizes.tobytes(), pixels.digest()):
        digest.update(part)
    return {"images": len(entries), "bytes": written}

"""Prepared datasets: images in one memory-mapped file per split, as pixels or as the original files."""

import datetime
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cskd.data.decode import ImageProblem, decode, file_bytes, measure, read_and_decode
from cskd.data.folders import ProgressReport, no_report, replaced_folder, require_free
from cskd.data.sources.base import LabelledImage, Listing, first_few
from cskd.data.splits import Split, image_bytes
from cskd.utils.errors import UserError
from cskd.utils.limits import usable_cores
from cskd.utils.threads import Item, threaded_map

FORMAT = 1  # of the files in a prepared folder; increase it when the files change
THREADS_FROM = 3 * 96 * 96  # bytes of the mean image from which decoding in threads is faster


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset, or several merged into one.

    digest: SHA-256 of classes, labels, sizes and pixels. A merged dataset's is made of its parts' names and digests.
    complete: True if the numbers of images are the official ones.
    source: the folder or archives that were read, and the checks that passed.
    short_side: in pixels, the median over the training images. A merged dataset has its smallest part's.
    skipped: files beside the images that are not used, each with the reason.
    domains: of a merged dataset, the part of each class.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split | None  # None if it was not opened
    digest: str
    complete: bool
    source: str
    short_side: int
    skipped: tuple[str, ...] = ()
    domains: tuple[str, ...] | None = None

    def domains_of(self, classes: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the domain of each of these classes; None for a dataset without domains."""
        if self.domains is None:
            return None
        domain_of = dict(zip(self.classes, self.domains, strict=True))
        return tuple(domain_of[label] for label in classes)


def open_dataset(folder: Path, *, test: bool = True) -> Dataset:
    """Return the dataset prepared in ``folder``. Raises UserError if it is missing, damaged, or of another format.

    The files' sizes are checked against ``dataset.json``; the pixels are not read. test: False does not open the
    test files, so that tuning cannot use them.
    """
    remedy = f"make data DATASET={folder.name}"
    try:
        about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise UserError(
                f"{folder} was prepared by another version (format {about['format']}, not {FORMAT}): "
                f"prepare it again with {remedy}"
            )
        return Dataset(
            name=about["name"],
            classes=tuple(about["classes"]),
            train=_open_split(folder, "train", about),
            test=_open_split(folder, "test", about) if test else None,
            digest=about["digest"],
            complete=about["complete"],
            source=about["source"],
            short_side=about["short_side"],
            skipped=tuple(about.get("skipped", ())),
        )
    except FileNotFoundError as error:
        raise UserError(f"{folder.name} is not prepared ({error.filename} is missing): {remedy}") from error
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} is damaged ({reason}): prepare it again with {remedy}") from error


def _open_split(dataset: Path, split: str, about: dict[str, Any]) -> Split:
    folder, num_classes = dataset / split, len(about["classes"])
    images, expected_bytes = about[split]["images"], about[split]["bytes"]

    def load(name: str, *shape: int) -> np.ndarray:
        # asarray: np.load returns another type for an archive of several arrays, which then has the wrong shape.
        array = np.asarray(np.load(folder / name, allow_pickle=False))
        if array.shape != shape:
            raise ValueError(f"{folder / name} has shape {array.shape}, not {shape}")
        return array

    labels, sizes = load("labels.npy", images), load("sizes.npy", images, 2)
    lengths = load("lengths.npy", images) if about.get("encoded") else None
    if not len(labels) or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"{folder / 'labels.npy'} has labels outside 0 to {num_classes - 1}")
    path = folder / "images.bin"
    total = int((image_bytes(sizes) if lengths is None else lengths).sum())
    if path.stat().st_size != total or expected_bytes != total:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, not {total:,}")
    # A plain array over the map, because slicing np.memmap itself costs microseconds per image.
    return Split.prepared(np.asarray(np.memmap(path, np.uint8, mode="r")), labels, sizes, lengths)


def merge(name: str, parts: dict[str, Dataset]) -> Dataset:
    """Return the dataset of all classes of the parts, in order, named ``<part>/<class>``.

    parts: opened datasets by the name of their domain. The test set is present if every part has it open.
    """
    datasets = parts.values()
    all_have_test = all(part.test is not None for part in datasets)
    first_classes = np.cumsum([0, *(len(part.classes) for part in datasets)])[:-1].tolist()
    content = json.dumps([[domain, part.digest] for domain, part in parts.items()])
    return Dataset(
        name=name,
        classes=tuple(f"{domain}/{label}" for domain, part in parts.items() for label in part.classes),
        train=Split.joined([part.train for part in datasets], first_classes),
        test=Split.joined([part.test for part in datasets], first_classes) if all_have_test else None,
        digest=hashlib.sha256(content.encode()).hexdigest(),
        complete=all(part.complete for part in datasets),
        source="; ".join(f"{domain}: {part.source}" for domain, part in parts.items()),
        short_side=min(part.short_side for part in datasets),
        skipped=tuple(file for part in datasets for file in part.skipped),
        domains=tuple(domain for domain, part in parts.items() for _ in part.classes),
    )


def write_dataset(
    folder: Path,
    name: str,
    listing: Listing,
    *,
    complete: bool,
    source: str,
    encoded: bool = False,
    report: ProgressReport = no_report,
) -> Dataset:
    """Decode a listing into ``folder``, replace its old content, and open the dataset.

    encoded: store the original files. They are decoded here as well, so that all can be used and the digest is that of
        their pixels.

    After an error or Ctrl-C, the old content is unchanged. Raises UserError for an inconsistent listing, for images
    that cannot be decoded (one message names them all), and for a folder that cannot be written or has no space.
    """
    listing.check(name)
    all_images = listing.train + listing.test
    with warnings.catch_warnings():
        # Pillow warns of a huge image, and raises only if it is twice as large. Here both are errors.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # torchvision's loader ignores the transparency of palettes, too.
        warnings.filterwarnings("ignore", "Palette images with Transparency", UserWarning)
        warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)
        if encoded:
            needed, problems = sum(file_bytes(image) for image, _ in all_images), []
        else:
            needed, problems = _measure(all_images, report)
        require_free(folder, needed)
        # Small images spend their time in Python, where threads only wait for each other.
        workers = min(16, usable_cores()) if needed / len(all_images) > THREADS_FROM else 1
        with replaced_folder(folder) as new:
            digest = hashlib.sha256(json.dumps(listing.classes).encode())
            about = {}
            for split, entries in (("train", listing.train), ("test", listing.test)):
                sources = (image for image, _ in entries)
                read = read_and_decode if encoded else decode
                if workers > 1:
                    images = threaded_map(read, sources, workers=workers, ahead=4 * workers)
                else:
                    images = map(read, sources)
                images = _counted(images, f"decode {split} images", len(entries), report)
                labels = np.array([label for _, label in entries], "<i8")
                about[split] = _write_split(new / split, images, labels, encoded, digest, problems)
            if problems:
                unique = list({problem.image: problem for problem in problems}.values())
                raise UserError(
                    f"{name}: {len(unique):,} of {len(all_images):,} images cannot be "
                    f"decoded: {first_few(unique, len(unique))}: replace them with undamaged copies"
                )
            sizes = np.load(new / "train" / "sizes.npy", allow_pickle=False)
            about |= {
                "format": FORMAT,
                "encoded": encoded,
                "name": name,
                "classes": listing.classes,
                "digest": digest.hexdigest(),
                "complete": complete,
                "source": source,
                "short_side": int(np.median(sizes.min(axis=1))),
                "skipped": listing.skipped,
                "prepared": datetime.datetime.now(datetime.UTC).date().isoformat(),
            }
            (new / "dataset.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return open_dataset(folder)


def _counted(items: Iterable[Item], stage: str, total: int, report: ProgressReport) -> Iterator[Item]:
    """Yield the items; report every hundredth, because a report takes longer than a small image."""
    report(stage, 0, total)
    for done, item in enumerate(items, 1):
        yield item
        if done % 100 == 0 or done == total:
            report(stage, done, total)


def _measure(entries: list[LabelledImage], report: ProgressReport) -> tuple[int, list[ImageProblem]]:
    """Return (bytes of all decoded images, images with a faulty header), read from the headers only."""
    total, problems = 0, []
    for image, _ in _counted(entries, "measure images", len(entries), report):
        size = measure(image)
        if isinstance(size, ImageProblem):
            problems.append(size)
        else:
            total += 3 * size[0] * size[1]
    return total, problems


def _write_split(
    folder: Path,
    images: Iterable[np.ndarray | tuple[bytes, np.ndarray] | ImageProblem],
    labels: np.ndarray,
    encoded: bool,
    digest: Any,
    problems: list[ImageProblem],
) -> dict[str, int]:
    """Write one split, add it to the digest (a hashlib object), and add undecodable images to ``problems``.

    images: pixels or, if encoded, (content of the file, pixels).
    After the first problem nothing more is written, but all images are decoded, so that one error names all problems.
    """
    folder.mkdir()
    sizes = np.zeros((len(labels), 2), "<i4")
    lengths = np.zeros(len(labels), "<i8")
    pixels = hashlib.sha256()
    with (folder / "images.bin").open("wb") as file:
        for index, image in enumerate(images):
            if isinstance(image, ImageProblem):
                problems.append(image)
            elif not problems:
                content, decoded = image if encoded else (None, image)
                decoded = np.ascontiguousarray(decoded)
                sizes[index] = decoded.shape[:2]
                pixels.update(decoded)
                lengths[index] = file.write(content if encoded else decoded)
    np.save(folder / "labels.npy", labels, allow_pickle=False)
    np.save(folder / "sizes.npy", sizes, allow_pickle=False)
    if encoded:
        np.save(folder / "lengths.npy", lengths, allow_pickle=False)
    for part in (labels.tobytes(), sizes.tobytes(), pixels.digest()):
        digest.update(part)
    return {"images": len(labels), "bytes": int(lengths.sum())}

"""What a reader finds: the classes and, for each split, the images with their labels."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cskd.utils.errors import UserError

ImageSource = Path | np.ndarray  # a file, or (height, width, 3) uint8
Labelled = tuple[ImageSource, int]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Listing:
    """The images of both splits, not yet decoded; a label is an index into ``classes``."""

    classes: list[str]
    train: list[Labelled]
    test: list[Labelled]

    def missing(self) -> list[Path]:
        """The files that are listed and not there."""
        return [image for image, _ in self.train + self.test if not _is_there(image)]

    def at_hand(self) -> "Listing":
        """The same without the files that are not there."""
        return replace(
            self,
            train=[entry for entry in self.train if _is_there(entry[0])],
            test=[entry for entry in self.test if _is_there(entry[0])],
        )

    def check(self, name: str) -> None:
        """Raise UserError for an empty split, a class without training images or a name used twice."""
        if not self.train or not self.test:
            raise UserError(f"{name}: no {'test' if self.train else 'training'} images were found")
        twice = sorted({label for label in self.classes if self.classes.count(label) > 1})
        if twice:
            raise UserError(f"{name}: {some(twice)}: more than one class of that name")
        trained = {label for _, label in self.train}
        empty = [label for index, label in enumerate(self.classes) if index not in trained]
        if empty:
            raise UserError(f"{name}: no training image of {some(empty)}: add some, or take the class out")


def _is_there(image: ImageSource) -> bool:
    return not isinstance(image, Path) or image.is_file()


def some(names: Iterable, limit: int = 3) -> str:
    """The first few of the names, and how many more there are."""
    names = [str(name) for name in names]
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more:,} more" if more > 0 else "")


def read_lines(path: Path) -> list[str]:
    """The lines of a list that hold something; Windows line ends are taken. UserError if unreadable."""
    try:
        # surrogateescape is how Python reads file names: a name in any encoding finds its file
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: unpack the official archive again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_table(path: Path, separator: str | None = None) -> dict[str, str]:
    """A list of two columns as a mapping of the first to the second.

    separator: what stands between the columns; None for any blanks. Further columns stay in the second.
    Raises UserError, with the line, for a line of one column and for a key that comes twice.
    """
    table = {}
    for line in read_lines(path):
        key, *rest = line.split(separator, maxsplit=1)
        if not rest:
            raise UserError(f"{path}: {line!r} has one column, not two: unpack the official archive again")
        if key in table:
            raise UserError(f"{path}: {key!r} is listed twice: unpack the official archive again")
        table[key] = rest[0].strip()
    return table


def image_files(folder: Path) -> list[Path]:
    """The images directly in a folder, by name. Hidden files (macOS leaves ``._*.jpg``) are not images."""
    return sorted(
        path
        for path in _entries(folder)
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in a folder, by name, without hidden ones."""
    return sorted(path for path in _entries(folder) if path.is_dir() and not path.name.startswith("."))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError as error:
        raise UserError(f"{folder} is missing") from error
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error


def class_folders(folder: Path) -> Listing:
    """A tree ``{train,test}/<class>/<images>``: the classes are train's folders, sorted by name.

    Raises UserError, by name and all at once, for classes without images, test classes that are not trained, and
    images outside the class folders.
    """
    classes = [path.name for path in subfolders(folder / "train")]
    if not classes:
        raise UserError(f"{folder / 'train'} has no class folders: it must hold train/<class>/<images>")
    labels = {name: label for label, name in enumerate(classes)}
    splits, faults = {"train": [], "test": []}, []
    for split, entries in splits.items():
        stray = image_files(folder / split)
        if stray:
            faults.append(f"{', '.join(map(str, stray))}: in no class folder: move it into {split}/<class>/")
        for path in subfolders(folder / split):
            images = image_files(path)
            if path.name not in labels:
                faults.append(f"{path}: class {path.name!r} has no folder in {folder / 'train'}")
            elif not images:
                faults.append(f"{path} holds no images: add some ({' '.join(EXTENSIONS)}), or remove it")
            else:
                entries += [(image, labels[path.name]) for image in images]
    if faults:
        raise UserError("; ".join(faults))
    return Listing(classes, **splits)

"""The description of a dataset: its official archives, its layout, its numbers of images, and its listing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cskd.utils.errors import UserError


@dataclass(frozen=True, slots=True)
class PackedImage:
    """An image file inside a tar archive. start, length: its bytes in the archive, which stores them unchanged."""

    archive: Path
    name: str
    start: int
    length: int

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    def read_bytes(self) -> bytes:
        with self.archive.open("rb") as file:
            file.seek(self.start)
            return file.read(self.length)


ImageFile = Path | PackedImage
ImageSource = ImageFile | np.ndarray  # an array is (height, width, 3) uint8
LabelledImage = tuple[ImageSource, int]


@dataclass(frozen=True)
class Archive:
    """One official file.

    checksum: ``md5:...``, ``sha1:...`` or ``sha256:...``, in hexadecimal; None if no checksum is published.
    size: in bytes, to estimate the download; 0 for a short list.
    mirrors: further addresses of the same file, tried in this order if the official one cannot be reached.
    needs_account: True if only a user with an account can download it; ``url`` is then the page of the download.
    """

    url: str
    filename: str
    checksum: str | None = None
    size: int = 0
    mirrors: tuple[str, ...] = ()
    needs_account: bool = False

    @property
    def algorithm(self) -> str | None:
        return self.checksum and self.checksum.partition(":")[0]

    def manual_download(self, folder: Path) -> str:
        """Return the instruction for a user whose machine cannot reach the address."""
        checksum = f" ({self.checksum.replace(':', ' ')})" if self.checksum else ""
        if self.needs_account:
            return f"log in at {self.url}, download {self.filename} and save it as {folder / self.filename}{checksum}"
        return f"download {self.url} by other means and save it as {folder / self.filename}{checksum}"


@dataclass(frozen=True)
class Listing:
    """The images of both splits before decoding.

    train, test: a label is an index into ``classes``. skipped: files that are not used, each with the reason.
    """

    classes: list[str]
    train: list[LabelledImage]
    test: list[LabelledImage]
    skipped: list[str] = field(default_factory=list)

    def without_missing(self) -> tuple["Listing", list[Path]]:
        """Return the listing without the files that do not exist, which are in ``skipped``, and these files."""
        missing = [image for image, _ in self.train + self.test if isinstance(image, Path) and not image.is_file()]
        if not missing:
            return self, []
        absent = set(missing)
        train, test = ([entry for entry in entries if entry[0] not in absent] for entries in (self.train, self.test))
        skipped = [*self.skipped, *(f"{path} (missing)" for path in missing)]
        return replace(self, train=train, test=test, skipped=skipped), missing

    def is_usable(self) -> bool:
        """Return True if there are test images, and training images of every class."""
        return bool(self.test) and {label for _, label in self.train} == set(range(len(self.classes)))

    def check(self, name: str) -> None:
        """Raise UserError for an empty split, a class without training images, or two classes of one name."""
        if not self.train or not self.test:
            raise UserError(f"{name}: no {'test' if self.train else 'training'} images were found")
        repeated = sorted({label for label in self.classes if self.classes.count(label) > 1})
        if repeated:
            raise UserError(f"{name}: several classes are named {first_few(repeated)}: give each class its own name")
        trained = {label for _, label in self.train}
        empty = [label for index, label in enumerate(self.classes) if index not in trained]
        if empty:
            raise UserError(f"{name}: no training image of {first_few(empty)}: add images or remove the class")


def first_few(names: Iterable, limit: int = 3) -> str:
    """Return the first names, separated by commas, and the number of the others."""
    names = [str(name) for name in names]
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more:,} more" if more > 0 else "")


@dataclass(frozen=True)
class DatasetSource:
    """One dataset: where it is downloaded, how its folder looks, and how many images it must have.

    reader: lists the images of an unpacked folder; the first line of its docstring describes the layout.
    folders: names of the unpacked folder in DATA_DIR, or absolute paths.
    landmarks: entries of the unpacked folder; a folder that has none of them is ignored.
    archive_root: the dataset's folder inside the archives.
    num_classes, train_images, test_images: official numbers; None for a user's own images.
    image_size: height and width in pixels; typical ones if the images have different sizes.
    reads_archives: True if the reader lists the images inside the archives, which are then not unpacked. It receives a
        folder with links to them.
    encoded: True if the images are prepared as the original files, and decoded whenever they are used.
    A source without folders and archives is bundled with an installed package.
    """

    name: str
    title: str
    reader: Callable[[Path], Listing]
    archives: tuple[Archive, ...] = ()
    folders: tuple[str, ...] = ()
    landmarks: tuple[str, ...] = ()
    archive_root: str = "."
    num_classes: int | None = None
    train_images: int | None = None
    test_images: int | None = None
    image_size: tuple[int, int] = (375, 500)
    reads_archives: bool = False
    encoded: bool = False

    @property
    def bundled(self) -> bool:
        return not self.archives and not self.folders

    def find(self, data_dir: Path) -> Path | None:
        """Return the unpacked folder in ``data_dir``, or None. Some tools unpack ``name`` as ``name/name``."""
        found = (data_dir / name / inner for name in self.folders for inner in (".", Path(name).name))
        return next((folder for folder in found if any((folder / entry).exists() for entry in self.landmarks)), None)

    def accepted_folders(self, data_dir: Path) -> str:
        """Return a sentence that names the accepted unpacked folders and their layout."""
        layout = (self.reader.__doc__ or "").partition("\n")[0].replace("``", "").rstrip(".")
        folders = " or ".join(f"{data_dir / name}/" for name in self.folders)
        return f"an unpacked copy is also accepted, as {folders}: {layout}"

    def read(self, folder: Path) -> Listing:
        """Return the images in ``folder``. Raises UserError with the faulty file."""
        return self.reader(folder)

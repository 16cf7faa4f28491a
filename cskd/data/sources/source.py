"""Where a dataset comes from and what it must hold."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cskd.data.archive import Archive
from cskd.data.sources.listing import Listing
from cskd.utils.cli import absolute


@dataclass(frozen=True)
class DatasetSource:
    """One dataset: its official archives, its layout, its official numbers.

    reader: lists the images of an unpacked tree; its first line tells what one has.
    folders: the names under which an unpacked tree is looked for in DATA_DIR; an absolute path stays one.
    landmarks: entries of the tree; a folder with none of them is something else.
    archive_root: the folder of the archives in which the tree lies.
    num_classes, train_images, test_images: official numbers; None where there are none.
    A source without folders and archives is bundled with an installed package.
    """

    name: str
    title: str
    homepage: str
    reader: Callable[[Path], Listing]
    archives: tuple[Archive, ...] = ()
    folders: tuple[str, ...] = ()
    landmarks: tuple[str, ...] = ()
    archive_root: str = "."
    num_classes: int | None = None
    train_images: int | None = None
    test_images: int | None = None

    @property
    def bundled(self) -> bool:
        return not self.archives and not self.folders

    def find(self, data_dir: Path) -> Path | None:
        """The unpacked tree in ``data_dir``, if there is one. Raises UserError for a name that no folder can have."""
        for name in self.folders:
            folder = absolute(name if name.startswith("~") else data_dir / name, "data.folder")
            if any((folder / landmark).exists() for landmark in self.landmarks):
                return folder
        return None

    def unpacked(self, data_dir: Path) -> str:
        """Where an unpacked tree is looked for, and what it has, as its reader says."""
        layout = (self.reader.__doc__ or "").partition("\n")[0].replace("``", "").rstrip(".")
        folders = " or ".join(f"{data_dir / name}/" for name in self.folders)
        return f"an unpacked tree is taken as well, as {folders}: {layout}"

    def read(self, folder: Path) -> Listing:
        """The images of the tree in ``folder``. Raises UserError, naming the file, for a faulty tree."""
        return self.reader(folder)

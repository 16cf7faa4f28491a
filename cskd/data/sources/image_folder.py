"""A user's own images: ``{train,test}/<class>/<images>``, and the search for images below a folder."""

import os
from pathlib import Path

from cskd.data.sources.base import DatasetSource, Listing
from cskd.utils.errors import UserError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LITTER = ("Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir")  # of Windows, macOS and Synology


def image_folder_source(name: str, folder: str) -> DatasetSource:
    """Return the source of the user's dataset ``name``. folder: in DATA_DIR, or absolute."""
    return DatasetSource(
        name=name,
        title=name,
        reader=read_class_folders,
        folders=(folder,),
        landmarks=("train", "test"),
    )


def read_class_folders(folder: Path, test: str = "test") -> Listing:
    """``{train,test}/<class>/<images>``. The classes are the folders in train, sorted by name.

    As in torchvision's ImageFolder, images in folders below a class folder belong to the class. Raises one UserError
    that names all classes without images, test classes without training images, and images outside the class folders.
    test: the name of the folder of the test images.
    """
    not_read = [path.name for path in subfolders(folder) if path.name not in ("train", test)]
    for split in ("train", test):
        if not (folder / split).is_dir():
            rename = f", or rename {' or '.join(not_read)} to {split}" if not_read else ""
            raise UserError(f"{folder / split} is missing: add it{rename}")
    classes = [path.name for path in subfolders(folder / "train")]
    if not classes:
        raise UserError(f"{folder / 'train'} has no class folders: it must hold train/<class>/<images>")
    labels = {name: label for label, name in enumerate(classes)}
    splits, faults, skipped = {"train": [], test: []}, [], []
    for split, entries in splits.items():
        stray, others = _sorted_out(path for path in _entries(folder / split) if not path.is_dir())
        skipped += others
        if stray:
            faults.append(
                f"{', '.join(map(str, stray))}: not in a class folder: move it into {split}/<class>/ or remove it"
            )
        for path in subfolders(folder / split):
            images, others = find_images(path)
            skipped += others
            if path.name not in labels:
                faults.append(f"{path}: class {path.name!r} has no folder in {folder / 'train'}: add training images")
            elif not images:
                faults.append(f"{path} holds no images: add some ({' '.join(EXTENSIONS)}) or remove it")
            else:
                entries += [(image, labels[path.name]) for image in images]
    if faults:
        raise UserError("; ".join(faults))
    skipped += [f"{folder / name} (only train and {test} are read)" for name in not_read]
    return Listing(classes, splits["train"], splits[test], skipped)


def find_images(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the images below a folder, sorted, and every other file with the reason why it is not an image.

    A dangling link counts as an image, which is then missing. Hidden files, such as macOS's ``._*.jpg``, and LITTER are
    left out.
    """
    paths, visited = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_raise_unreadable):
        real = os.path.realpath(parent)
        folders[:] = [] if real in visited else filter(_is_content, folders)  # a link may lead to its own parent
        if real not in visited:
            paths += [Path(parent, name) for name in files]
        visited.add(real)
    return _sorted_out(paths)


def _sorted_out(paths) -> tuple[list[Path], list[str]]:
    """Return (images, other files with a reason) of these paths, without litter."""
    images, others = [], []
    for path in sorted(path for path in paths if _is_content(path.name)):
        if path.exists() and path.suffix.lower() not in EXTENSIONS:
            others.append(f"{path} (not an image suffix)")
        elif path.exists() and not path.is_file():
            others.append(f"{path} (not a regular file)")
        else:
            images.append(path)
    return images, others


def _is_content(name: str) -> bool:
    return not name.startswith(".") and name not in LITTER


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, sorted by name, without hidden ones and LITTER."""
    return sorted(path for path in _entries(folder) if path.is_dir() and _is_content(path.name))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        _raise_unreadable(error)


def _raise_unreadable(error: OSError) -> None:
    if isinstance(error, FileNotFoundError):
        raise UserError(f"{error.filename} is missing: unpack the dataset again") from error
    raise UserError(f"{error.filename} cannot be read ({error.strerror}): make it readable") from error

"""A user's own images: ``{train,test}/<class>/<images>``."""

from pathlib import Path

from cskd.data.sources.base import DatasetSource, Listing
from cskd.data.sources.reading import EXTENSIONS, image_files, subfolders
from cskd.utils.errors import UserError


def image_folder_source(name: str, folder: str) -> DatasetSource:
    """Return the source of the user's dataset ``name``. folder: in DATA_DIR, or absolute."""
    return DatasetSource(
        name=name,
        title=name,
        homepage="",
        reader=read_class_folders,
        folders=(folder,),
        landmarks=("train", "test"),
    )


def read_class_folders(folder: Path) -> Listing:
    """``{train,test}/<class>/<images>``. The classes are the folders in train, sorted by name.

    Raises one UserError that names all classes without images, test classes without training images, and images
    outside the class folders.
    """
    classes = [path.name for path in subfolders(folder / "train")]
    if not classes:
        raise UserError(f"{folder / 'train'} has no class folders: it must hold train/<class>/<images>")
    labels = {name: label for label, name in enumerate(classes)}
    splits, faults = {"train": [], "test": []}, []
    for split, entries in splits.items():
        stray = image_files(folder / split)
        if stray:
            faults.append(f"{', '.join(map(str, stray))}: not in a class folder: move it into {split}/<class>/")
        for path in subfolders(folder / split):
            images = image_files(path)
            if path.name not in labels:
                faults.append(f"{path}: class {path.name!r} has no folder in {folder / 'train'}: add training images")
            elif not images:
                faults.append(f"{path} holds no images: add some ({' '.join(EXTENSIONS)}) or remove it")
            else:
                entries += [(image, labels[path.name]) for image in images]
    if faults:
        raise UserError("; ".join(faults))
    return Listing(classes, **splits)

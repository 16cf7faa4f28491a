"""Any tree of images of the user's own: ``{train,test}/<class>/<images>``."""

from cskd.data.sources.listing import class_folders
from cskd.data.sources.source import DatasetSource


def image_folder_source(name: str, folder: str) -> DatasetSource:
    """The user's dataset ``name``. folder: in DATA_DIR, or absolute.

    Classes are train's folders, sorted by name; images lie directly in them. Test classes must be among
    the training ones.
    """
    return DatasetSource(
        name=name,
        title=name,
        homepage="",
        reader=class_folders,
        folders=(folder,),
        landmarks=("train", "test"),
    )

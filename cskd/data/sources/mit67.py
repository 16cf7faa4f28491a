"""MIT Indoor Scenes (Quattoni and Torralba, CVPR 2009): photographs of 67 kinds of room.

Some images are GIF or PNG files with a ``.jpg`` name; Pillow detects the format from the content.
"""

from pathlib import Path

from cskd.data.sources.base import Archive, DatasetSource, LabelledImage, Listing
from cskd.data.sources.reading import UNPACK_AGAIN, read_lines
from cskd.utils.errors import UserError


def read(folder: Path) -> Listing:
    """``Images/<class>/*.jpg, TrainImages.txt, TestImages.txt``; each line of a list is ``<class>/<file>``.

    The archive holds three times as many images as are listed. Labels follow the sorted class names.
    """
    lists = {split: folder / f"{split}Images.txt" for split in ("Train", "Test")}
    classes = sorted({line.partition("/")[0] for line in read_lines(lists["Train"])})
    return Listing(classes, *(_read_list(path, folder / "Images", classes) for path in lists.values()))


def _read_list(path: Path, images: Path, classes: list[str]) -> list[LabelledImage]:
    label_of = {name: label for label, name in enumerate(classes)}
    entries = []
    for line in read_lines(path):
        name, slash, file = line.partition("/")
        if not slash or not file or name not in label_of:
            raise UserError(f"{path}: {line!r} is not <class>/<file> with a class of TrainImages.txt: {UNPACK_AGAIN}")
        entries.append((images / name / file, label_of[name]))
    return entries


SOURCE = DatasetSource(
    name="mit67",
    title="MIT Indoor Scenes 67",
    reader=read,
    archives=(
        # No checksums of the lists are published; the official numbers of images check them.
        Archive("http://web.mit.edu/torralba/www/TrainImages.txt", "TrainImages.txt"),
        Archive("http://web.mit.edu/torralba/www/TestImages.txt", "TestImages.txt"),
        Archive(
            "http://groups.csail.mit.edu/vision/LabelMe/NewImages/indoorCVPR_09.tar",
            "indoorCVPR_09.tar",
            "sha1:0b252516e746ba428b96af408d2e8162d9b08ac5",  # MIT publishes none; from vipy's dataset MIT67
            2_592_010_240,
        ),
    ),
    folders=("mit67",),
    landmarks=("Images", "TrainImages.txt"),
    num_classes=67,
    train_images=5_360,
    test_images=1_340,
)

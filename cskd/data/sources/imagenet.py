"""ImageNet (ILSVRC 2012; Russakovsky et al., 2015): 1,000 classes; its validation set is the test set."""

import io
import tarfile
from pathlib import Path

from cskd.data.sources.base import Archive, DatasetSource, LabelledImage, Listing, PackedImage
from cskd.data.sources.image_folder import read_class_folders, subfolders
from cskd.data.sources.reading import reading_errors
from cskd.utils.errors import UserError

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
PAGE = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php"
FETCH_AGAIN = "fetch the official archive again"


def read(folder: Path) -> Listing:
    """``train/<wnid>/*.JPEG, val/<wnid>/*.JPEG``.

    A folder with the three official archives instead gives the same listing. Classes are the WordNet ids: the words of
    two classes are equal ("crane"). Labels and order are those of torchvision's ImageNet.
    """
    if (folder / TRAIN).exists():
        return _read_archives(folder)
    if (folder / "val").is_dir() and not subfolders(folder / "val"):
        raise UserError(
            f"{folder / 'val'} has no class folders: sort its images into val/<wnid>/, or use the official archives"
        )
    return read_class_folders(folder, test="val")


def _read_archives(folder: Path) -> Listing:
    by_wnid = _train_images(folder / TRAIN)
    wnids = sorted(by_wnid)
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    images, truth = _val_images(folder / VAL), _val_wnids(folder / DEVKIT)
    if len(images) != len(truth) or not set(truth) <= set(wnids):
        raise UserError(f"{folder / DEVKIT} does not belong to {TRAIN} and {VAL}: {FETCH_AGAIN}")
    test = [(image, label_of[wnid]) for image, wnid in zip(images, truth, strict=True)]
    test.sort(key=lambda entry: (entry[1], entry[0].name))  # the order of the class folders
    train: list[LabelledImage] = [(image, label_of[wnid]) for wnid in wnids for image in by_wnid[wnid]]
    return Listing(wnids, train, test)


def _train_images(archive: Path) -> dict[str, list[PackedImage]]:
    """Return the images of each WordNet id, from a tar file that holds a tar file for each."""
    by_wnid = {}
    with reading_errors(archive, FETCH_AGAIN), tarfile.open(archive, "r:") as outer:
        for member in outer:
            with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                by_wnid[Path(member.name).stem] = _images(inner, archive, member.offset_data)
    return by_wnid


def _val_images(archive: Path) -> list[PackedImage]:
    with reading_errors(archive, FETCH_AGAIN), tarfile.open(archive, "r:") as file:
        return _images(file, archive)


def _images(file: tarfile.TarFile, archive: Path, start: int = 0) -> list[PackedImage]:
    """Return the images of a tar file, sorted by name. start: its first byte in ``archive``."""
    images = (
        PackedImage(archive, Path(member.name).name, start + member.offset_data, member.size)
        for member in file
        if member.isfile()
    )
    return sorted(images, key=lambda image: image.name)


def _val_wnids(archive: Path) -> list[str]:
    """Return the WordNet id of each validation image, in the order of their names."""
    from scipy.io import loadmat  # noqa: PLC0415 - every command imports this module, and few read the lists

    with reading_errors(archive, FETCH_AGAIN), tarfile.open(archive) as file:

        def content(name: str) -> bytes:
            return file.extractfile(f"ILSVRC2012_devkit_t12/data/{name}").read()

        synsets = loadmat(io.BytesIO(content("meta.mat")), squeeze_me=True)["synsets"]
        wnid_of = {
            int(synset["ILSVRC2012_ID"]): str(synset["WNID"])
            for synset in synsets
            if int(synset["num_children"]) == 0  # the others are groups of classes
        }
        return [wnid_of[int(line)] for line in content("ILSVRC2012_validation_ground_truth.txt").split()]


SOURCE = DatasetSource(
    name="imagenet",
    title="ImageNet",
    reader=read,
    archives=(  # the checksums are those of torchvision.datasets.ImageNet
        Archive(PAGE, TRAIN, "md5:1d675b47d978889d74fa0da5fadfb00e", 147_897_477_120, needs_account=True),
        Archive(PAGE, VAL, "md5:29b22e2961454d5413ddabcf34fc5622", 6_744_924_160, needs_account=True),
        Archive(PAGE, DEVKIT, "md5:fa75699e90414af021442c21a62c3abf", 2_568_145, needs_account=True),
    ),
    folders=("imagenet",),
    landmarks=("train", "val"),
    num_classes=1_000,
    train_images=1_281_167,
    test_images=50_000,
    reads_archives=True,
    encoded=True,
)

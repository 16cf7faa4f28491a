"""Small datasets in the exact layouts of the official archives.

Each builder writes a folder under ``root`` and returns it. Each of its three classes has TRAIN training and TEST test
images. ``small`` gives a source these numbers.
"""

import dataclasses
import hashlib
import io
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from cskd.data.sources.base import DatasetSource

TRAIN, TEST = 3, 2
WNIDS = ("n02124075", "n01443537", "n04067472")


def small(source: DatasetSource, classes: int = 3) -> DatasetSource:
    """The source with the numbers of a small dataset instead of the official ones."""
    return dataclasses.replace(source, num_classes=classes, train_images=classes * TRAIN, test_images=classes * TEST)


def noise(seed: int, height: int = 9, width: int = 12) -> np.ndarray:
    """(height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, seed: int = 0, *, mode: str = "RGB", form: str | None = None, **size: int) -> Path:
    """Write an image of noise. form: its format, if the name does not tell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, **size)).convert(mode).save(path, format=form)
    return path


def image_folder(root: Path, classes: tuple[str, ...] = ("iris", "rose", "tulip"), suffix: str = ".png") -> Path:
    """``{train,test}/<class>/*``."""
    for split, count in (("train", TRAIN), ("test", TEST)):
        for label, name in enumerate(classes):
            for index in range(count):
                seed = 100 * label + 10 * count + index
                write_image(root / split / name / f"{index:03d}{suffix}", seed)
    return root


class _Python2Pickler(pickle._Pickler):
    """Writes pickles as Python 2 with NumPy 1: byte strings, and NumPy's old module names."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    def save_text(self, value):
        self.save_bytes(value.encode("latin1"))

    def save_function(self, value, name=None):
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{value.__name__}\n".encode())

    dispatch[bytes], dispatch[str] = save_bytes, save_text
    dispatch[type(np._core.multiarray._reconstruct)] = save_function


def python2_pickle(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        _Python2Pickler(file, protocol=2).dump(content)


def cifar100_pickles(root: Path, classes: tuple[str, ...] = ("apple", "baby", "bear")) -> Path:
    """``cifar-100-python/{train,test,meta}``. Image i is ``noise(i, 32, 32)``, its class i modulo 3.

    As in the official files, the file names are in another order.
    """
    folder = root / "cifar-100-python"
    for split, count in (("train", TRAIN), ("test", TEST)):
        total = count * len(classes)
        images = np.stack([noise(seed, 32, 32) for seed in range(total)])
        content = {
            "filenames": [f"{split}_{total - index:03d}.png" for index in range(total)],
            "batch_label": f"{split}ing batch 1 of 1",
            "fine_labels": [index % len(classes) for index in range(total)],
            "coarse_labels": [0] * total,
            "data": images.transpose(0, 3, 1, 2).reshape(total, -1),
        }
        python2_pickle(folder / split, content)
    python2_pickle(folder / "meta", {"fine_label_names": list(classes), "coarse_label_names": ["things"]})
    return folder


def tiny_imagenet(root: Path, wnids: tuple[str, ...] = WNIDS) -> Path:
    """``tiny-imagenet-200``, with some greyscale images like the official one."""
    folder = root / "tiny-imagenet-200"
    annotations = []
    for label, wnid in enumerate(wnids):
        for index in range(TRAIN):
            path = folder / "train" / wnid / "images" / f"{wnid}_{index}.JPEG"
            write_image(path, 10 * label + index, mode="L" if index == 0 else "RGB", height=64, width=64)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t63\n")
        for index in range(TEST):
            name = f"val_{label * TEST + index}.JPEG"
            write_image(folder / "val" / "images" / name, 500 + 10 * label + index, height=64, width=64)
            annotations.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))
    (folder / "wnids.txt").write_text("\n".join(wnids))  # without a final newline, like the official one
    (folder / "words.txt").write_text("".join(f"{wnid}\tthing {wnid}, object\n" for wnid in sorted(wnids)))
    return folder


def cub200(root: Path) -> Path:
    """``CUB_200_2011``, and ``attributes.txt`` beside it, which is also in the official archive."""
    folder = root / "CUB_200_2011"
    lists = {name: [] for name in ("images", "image_class_labels", "train_test_split", "classes")}
    number = 0
    for label, bird in enumerate(("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")):
        lists["classes"].append(f"{label + 1} {bird}")
        for index in range(TRAIN + TEST):
            number += 1
            name = f"{bird}/{bird[4:]}_{index:04d}_{number}.jpg"
            write_image(folder / "images" / name, number, mode="L" if index == 1 else "RGB", width=10 + index)
            lists["images"].append(f"{number} {name}")
            lists["image_class_labels"].append(f"{number} {label + 1}")
            lists["train_test_split"].append(f"{number} {int(index < TRAIN)}")
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    (root / "attributes.txt").write_text("1 has_bill_shape::curved\n")
    return folder


def dogs(root: Path) -> Path:
    """``stanford-dogs``: the contents of images.tar and lists.tar in one folder."""
    folder = root / "stanford-dogs"
    lists = {"train": [], "test": [], "file": []}
    for label, breed in enumerate(("n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02085936-Maltese_dog")):
        for index in range(TRAIN + TEST):
            name = f"{breed}/{breed[:9]}_{index}.jpg"
            write_image(folder / "Images" / name, 10 * label + index, mode="L" if index == 1 else "RGB")
            for split in ("train" if index < TRAIN else "test", "file"):
                lists[split].append((name, label + 1))
    for split, entries in lists.items():
        write_dogs_list(folder / f"{split}_list.mat", entries)
    return folder


def write_dogs_list(path: Path, entries: list[tuple[str, int]]) -> None:
    names = np.empty((len(entries), 1), dtype=object)
    names[:, 0] = [name for name, _ in entries]
    annotations = np.empty((len(entries), 1), dtype=object)
    annotations[:, 0] = [name.removesuffix(".jpg") for name, _ in entries]
    labels = np.array([[label] for _, label in entries], np.uint8)
    savemat(path, {"file_list": names, "annotation_list": annotations, "labels": labels})


def mit67(root: Path) -> Path:
    """``mit67``: Windows line ends, names with spaces, a GIF and a PNG named .jpg, unlisted images."""
    folder = root / "mit67"
    lists = {"Train": [], "Test": []}
    for label, room in enumerate(("airport_inside", "garage", "inside_bus")):
        names = [f"{room}_00{index}.jpg" for index in range(TRAIN + TEST)]
        names[1] = f"{room.title()} inside.jpg"
        forms = {0: "GIF", 2: "PNG"}
        for index, name in enumerate(names):
            write_image(folder / "Images" / room / name, 10 * label + index, form=forms.get(index, "JPEG"))
            lists["Train" if index < TRAIN else "Test"].append(f"{room}/{name}")
        write_image(folder / "Images" / room / "unlisted.jpg", 99)
    for split, lines in lists.items():
        (folder / f"{split}Images.txt").write_bytes("\r\n".join(lines).encode())
    return folder


def imagenet(root: Path) -> Path:
    """``imagenet/{train,val}/<wnid>``, with greyscale and CMYK images, and PNGs named .JPEG, like the official set.

    The first validation images have the last class, so their order differs from that of the class folders.
    """
    folder = root / "imagenet"
    kinds = ({"mode": "L"}, {"mode": "CMYK", "form": "JPEG"}, {"form": "PNG"})
    for label, wnid in enumerate(sorted(WNIDS)):
        for index, kind in enumerate(kinds):
            size = {"height": 40 + index, "width": 50 + label}
            write_image(folder / "train" / wnid / f"{wnid}_{index}.JPEG", 10 * label + index, **kind, **size)
        for index in range(TEST):
            number = (len(WNIDS) - 1 - label) * TEST + index + 1
            name = f"ILSVRC2012_val_{number:08d}.JPEG"
            write_image(folder / "val" / wnid / name, 500 + number, height=45, width=40, **kinds[index])
    return folder


def _imagenet_devkit() -> dict[str, bytes]:
    """The files of the devkit: classes in another order than their ids, and a group of classes."""
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")
    rows = [(number, wnid, f"thing {number}, object", "a thing", 0) for number, wnid in enumerate(WNIDS, 1)]
    synsets = np.array([*rows, (len(rows) + 1, "n00001740", "entity", "all", 3)], [(name, object) for name in fields])
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    truth = [number for wnid in sorted(WNIDS, reverse=True) for number in [WNIDS.index(wnid) + 1] * TEST]
    content = {
        "meta.mat": meta.getvalue(),
        "ILSVRC2012_validation_ground_truth.txt": "\n".join(map(str, truth)).encode(),
    }
    return {f"ILSVRC2012_devkit_t12/data/{name}": data for name, data in content.items()}


def _pack_imagenet(tree: Path, path: Path) -> None:
    """Write the official archive of that name."""
    if "devkit" in path.name:
        members = _imagenet_devkit()
    elif "train" in path.name:  # not in the order of the names
        members = {
            f"{folder.name}.tar": _tar(_files(folder)) for folder in sorted((tree / "train").iterdir(), reverse=True)
        }
    else:
        members = _files(tree / "val")
    path.write_bytes(_tar(members, "w:gz" if path.suffix == ".gz" else "w"))


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.JPEG"), reverse=True)}


def _tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return content.getvalue()


# The builders of the downloaded datasets, by name.
TREES = {
    "cifar100": cifar100_pickles,
    "tinyimagenet": tiny_imagenet,
    "cub200": cub200,
    "dogs": dogs,
    "mit67": mit67,
    "imagenet": imagenet,
}


def pack(source: DatasetSource, tree: Path, folder: Path, url: str = "http://127.0.0.1:9/{}") -> DatasetSource:
    """Pack a fake tree into the official archives in ``folder``. Return the source with their checksums.

    url: the address of an archive, with its path in place of {}. The default leads nowhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packed = []
    for archive in source.archives:
        path = folder / archive.filename
        if source.name == "imagenet":
            _pack_imagenet(tree, path)
        elif path.suffix == ".txt":
            shutil.copy(tree / path.name, path)
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as file:
                for entry in sorted(tree.rglob("*")):
                    file.write(entry, entry.relative_to(tree.parent))
        else:
            with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as file:
                for entry in _top_entries(path.name, tree):
                    file.add(entry, entry.relative_to(tree if source.archive_root == "." else tree.parent))
        checksum = archive.checksum
        if checksum:
            checksum = f"{archive.algorithm}:{hashlib.new(archive.algorithm, path.read_bytes()).hexdigest()}"
        packed.append(dataclasses.replace(archive, url=url.format(path), checksum=checksum, mirrors=()))
    return dataclasses.replace(small(source), archives=tuple(packed))


def _top_entries(name: str, tree: Path) -> list[Path]:
    """The top entries of the official tar file of that name."""
    if name == "lists.tar":
        return sorted(tree.glob("*.mat"))
    if name in ("images.tar", "indoorCVPR_09.tar"):
        return [tree / "Images"]
    if name == "CUB_200_2011.tgz":
        return [tree, tree.parent / "attributes.txt"]
    return [tree]

"""The datasets by name, and how one becomes prepared: found or downloaded, checked, decoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cskd.data.archive import Archive, download, place, verify
from cskd.data.sources import cifar100, cub200, digits, dogs, mit67, tinyimagenet
from cskd.data.sources.listing import Listing, some
from cskd.data.sources.source import DatasetSource
from cskd.data.store import Dataset, open_dataset, write_dataset
from cskd.data.workspace import (
    Report,
    exclusive,
    remove_leftovers,
    silent,
    temporary_folder,
)
from cskd.utils.errors import UserError

SOURCES: dict[str, DatasetSource] = {
    module.SOURCE.name: module.SOURCE for module in (cifar100, tinyimagenet, cub200, dogs, mit67, digits)
}
INCOMPLETE = (
    "unpack the official archive again, or take the incomplete copy with PARTIAL=1 "
    "(its numbers are never shown beside the paper's)"
)


def get_source(name: str) -> DatasetSource:
    """The source of that name. Raises UserError that lists the known ones."""
    if name not in SOURCES:
        raise UserError(f"unknown dataset {name!r}: choose from {', '.join(SOURCES)}")
    return SOURCES[name]


def prepared_folder(name: str, data_dir: Path) -> Path:
    return data_dir / "prepared" / name


def open_prepared(name: str, data_dir: Path, *, test: bool = True) -> Dataset:
    """The prepared dataset; ``test=False`` leaves its test set closed.

    Raises UserError, with the command that prepares it, if it is not there.
    """
    return open_dataset(prepared_folder(name, data_dir), test=test)


def prepare(
    name: str,
    data_dir: Path,
    *,
    partial: bool = False,
    source: DatasetSource | None = None,
    report: Report | None = None,
) -> Dataset:
    """The dataset, prepared if it is not yet.

    Looked for in this order: prepared; an unpacked official tree in ``data_dir``; its archives in
    ``data_dir`` or ``data_dir/downloads``; the official addresses. Archives stay where they are. A dataset
    once prepared is not compared with its images again: remove its folder to have it prepared anew.

    partial: take a copy with images missing, as ``complete=False``, too. Without it, a dataset that was
    prepared so is prepared anew.
    source: for a dataset outside the catalogue. report: told the progress (see ``workspace.Report``).
    Raises UserError for whatever the user can mend.
    """
    source = source or get_source(name)
    report = report or silent
    folder = prepared_folder(name, data_dir)
    ready = _already(folder, partial)
    if ready:
        return ready
    with exclusive(data_dir, report):
        remove_leftovers(folder.parent, name)
        ready = _already(folder, partial)  # by another process, meanwhile
        if ready:
            return ready
        with _tree(source, folder, data_dir, report) as (tree, described):
            report("list images", 0, None)
            listing, complete = _read(source, tree, partial)
            counts = ", counts checked" if complete else ", incomplete"
            text = described + (counts if source.num_classes else "")
            return write_dataset(folder, name, listing, complete=complete, source=text, report=report)


def _already(folder: Path, partial: bool) -> Dataset | None:
    """The prepared dataset, unless it is missing, damaged, or partial where that is not wanted."""
    try:
        dataset = open_dataset(folder)
    except UserError:  # its remedy is to prepare it, which is what comes next
        return None
    return dataset if dataset.complete or partial else None


@contextmanager
def _tree(source: DatasetSource, folder: Path, data_dir: Path, report: Report) -> Iterator[tuple[Path, str]]:
    """The source's unpacked tree and how it was come by; what had to be unpacked is removed at the end."""
    at_hand = source.find(data_dir)
    if source.bundled:
        yield data_dir, "bundled with an installed package"
    elif at_hand:
        yield at_hand, f"folder {at_hand.name} at hand"
    elif source.archives:
        paths = _gather(source, data_dir, report)
        with temporary_folder(folder.with_name(f"{source.name}.unpacked")) as aside:
            for path in paths:
                place(path, aside / "tree", report)
            described = ", ".join(_described(archive) for archive in source.archives)
            try:
                yield aside / "tree" / source.archive_root, described
            except UserError as error:
                # the unpacked tree is gone when this is read: name the files that stay
                message = str(error).replace(f"{aside / 'tree'}/", "")
                where = ", ".join(str(path) for path in paths)
                raise UserError(
                    f"{message} (read from {where}: delete what is faulty to have it downloaded again)"
                ) from error
    else:
        raise UserError(f"{source.name}: {data_dir / source.folders[0]} holds no train/ and test/ folders")


def _gather(source: DatasetSource, data_dir: Path, report: Report) -> list[Path]:
    """Every archive of the source, verified: those at hand, then those downloaded."""
    places = (data_dir, data_dir / "downloads")
    at_hand: dict[Archive, Path] = {}
    for archive in source.archives:
        for path in (folder / archive.filename for folder in places):
            if archive not in at_hand and path.is_file():
                verify(path, archive, report)
                at_hand[archive] = path
    for archive in source.archives:
        if archive not in at_hand:
            try:
                at_hand[archive] = download(archive, data_dir / "downloads", report)
            except UserError as error:
                others = [other for other in source.archives if other not in at_hand and other != archive]
                also = [other.by_hand(data_dir / "downloads") for other in others]
                raise UserError(f"{'; also '.join([str(error), *also])}; {source.unpacked(data_dir)}") from error
    return [at_hand[archive] for archive in source.archives]


def _described(archive: Archive) -> str:
    return f"archive {archive.filename}" + (f" ({archive.algorithm} verified)" if archive.checksum else "")


def _read(source: DatasetSource, tree: Path, partial: bool) -> tuple[Listing, bool]:
    """The images of the tree that are there, and whether they are all of the official ones."""
    listing = source.read(tree)
    missing = listing.missing()
    if missing and not partial:
        raise UserError(f"{source.name}: {len(missing):,} listed images are missing: {some(missing)}: {INCOMPLETE}")
    listing = listing.at_hand() if missing else listing
    return listing, _counts_hold(source, listing, tree, partial) and not missing


def _counts_hold(source: DatasetSource, listing: Listing, tree: Path, partial: bool) -> bool:
    """Whether the official numbers hold; UserError if they do not and ``partial`` does not allow it."""
    if source.num_classes not in (None, len(listing.classes)):
        raise UserError(
            f"{source.name}: {source.title} has {source.num_classes} classes, {tree} has "
            f"{len(listing.classes)}: unpack the official archive again"
        )
    wrong = [
        f"{expected:,} {kind} images, found {found:,}"
        for kind, expected, found in (
            ("training", source.train_images, len(listing.train)),
            ("test", source.test_images, len(listing.test)),
        )
        if expected not in (None, found)
    ]
    if wrong and not partial:
        raise UserError(f"{source.name}: expected {' and '.join(wrong)} in {tree}: {INCOMPLETE}")
    return not wrong

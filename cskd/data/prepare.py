"""Prepare a dataset: find or download it, check it, decode it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cskd.data.archives import download, link, unpack_or_copy, verify
from cskd.data.folders import ProgressReport, leftovers, no_report, remove_leftovers, storage_errors, temporary_folder
from cskd.data.sources.base import Archive, DatasetSource, Listing, first_few
from cskd.data.sources.registry import SOURCES
from cskd.data.store import Dataset, open_dataset, write_dataset
from cskd.utils.errors import UserError, did_you_mean
from cskd.utils.files import exclusive

LOCK = ".lock"  # in DATA_DIR: one process prepares at a time
PARTIAL = "accept the incomplete copy with PARTIAL=1 (its results are never compared with the paper's)"


def get_source(name: str) -> DatasetSource:
    """Return the source with this name. Raises UserError, with the known names, for another name."""
    if name not in SOURCES:
        raise UserError(f"unknown dataset {name!r}: {did_you_mean(name, SOURCES)}choose from {', '.join(SOURCES)}")
    return SOURCES[name]


def prepared_folder(name: str, data_dir: Path) -> Path:
    return data_dir / "prepared" / name


def open_prepared(name: str, data_dir: Path, *, test: bool = True) -> Dataset:
    """Return the prepared dataset. test: False does not open its test set.

    Raises UserError, with the command that prepares it, if it is missing or damaged.
    """
    return open_dataset(prepared_folder(name, data_dir), test=test)


def prepare(
    name: str,
    data_dir: Path,
    *,
    partial: bool = False,
    source: DatasetSource | None = None,
    report: ProgressReport = no_report,
) -> Dataset:
    """Return the prepared dataset; prepare it first if necessary.

    The images come from the first of these that exists: an unpacked official folder in ``data_dir``; the archives in
    ``data_dir`` or ``data_dir/downloads``; the official addresses. Archives are not deleted. A prepared dataset is not
    compared with its images again: remove its folder to prepare it again.

    Args:
        partial: accept a copy with missing images, with ``complete=False``. Without it, such a dataset is prepared
            again.
        source: the source of a dataset that is not in the registry.

    Raises UserError for every problem that the user can fix.
    """
    source = source or get_source(name)
    folder = prepared_folder(name, data_dir)
    prepared = _open_if_prepared(folder, partial)
    if prepared and not leftovers(folder.parent, name):
        return prepared
    with storage_errors(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
    with exclusive(data_dir / LOCK, lambda: report(f"wait for another process in {data_dir}", 0, None)):
        remove_leftovers(folder.parent, name)
        prepared = _open_if_prepared(folder, partial)  # another process may have prepared it meanwhile
        if prepared:
            return prepared
        with _unpacked(source, folder, data_dir, report) as (tree, origin):
            report("list images", 0, None)
            listing, complete = _read(source, tree, partial)
            counts = ", counts checked" if complete else ", incomplete"
            text = origin + (counts if source.num_classes else "")
            return write_dataset(
                folder, name, listing, complete=complete, source=text, encoded=source.encoded, report=report
            )


def _open_if_prepared(folder: Path, partial: bool) -> Dataset | None:
    """Return the prepared dataset; None if it is missing, damaged, or incomplete without ``partial``."""
    try:
        dataset = open_dataset(folder)
    except UserError:
        return None
    return dataset if dataset.complete or partial else None


@contextmanager
def _unpacked(
    source: DatasetSource, folder: Path, data_dir: Path, report: ProgressReport
) -> Iterator[tuple[Path, str]]:
    """Yield (the unpacked folder, its origin as text). A folder that was unpacked here is removed on exit."""
    with storage_errors(data_dir):
        found = source.find(data_dir)
    if source.bundled:
        yield data_dir, "bundled with an installed package"
    elif found:
        yield found, f"folder {found.name}"
    elif source.archives:
        paths = _gather(source, data_dir, report)
        with temporary_folder(folder.with_name(f"{source.name}.unpacked")) as temporary:
            tree = temporary / "tree"
            for path in paths:
                if source.reads_archives:
                    link(path, tree)
                else:
                    unpack_or_copy(path, tree, report)
            origin = ", ".join(_describe(archive) for archive in source.archives)
            try:
                yield tree / source.archive_root, origin
            except UserError as error:
                # The temporary folder is gone when the user reads this: name the archives instead.
                message = str(error).replace(f"{tree}/", "")
                archives = ", ".join(map(str, paths))
                raise UserError(f"{message} (read from {archives}: delete the faulty file to download it)") from error
    else:
        raise UserError(f"{source.name}: {data_dir / source.folders[0]} has no train/ and test/ folders: add them")


def _gather(source: DatasetSource, data_dir: Path, report: ProgressReport) -> list[Path]:
    """Verify the archives that exist, download the others, and return the paths of all."""
    downloads = data_dir / "downloads"
    paths: dict[Archive, Path] = {}
    for archive in source.archives:
        present = (folder / archive.filename for folder in (data_dir, downloads))
        if path := next(filter(Path.is_file, present), None):
            paths[archive] = path
    missing = [archive for archive in source.archives if archive not in paths]
    if not any(archive.needs_account for archive in missing):  # otherwise nothing can be prepared yet
        for archive, path in paths.items():
            verify(path, archive, report)
    for archive in missing:
        try:
            paths[archive] = download(archive, downloads, report)
        except UserError as error:
            others = [other for other in missing if other not in paths and other != archive]
            message = "; also ".join([str(error), *(other.manual_download(downloads) for other in others)])
            raise UserError(f"{message}; {source.accepted_folders(data_dir)}") from error
    return [paths[archive] for archive in source.archives]


def _describe(archive: Archive) -> str:
    return f"archive {archive.filename}" + (f" ({archive.algorithm} verified)" if archive.checksum else "")


def _read(source: DatasetSource, tree: Path, partial: bool) -> tuple[Listing, bool]:
    """Return (existing images, whether they are complete). Raises UserError for missing images unless ``partial``."""
    existing, missing = source.read(tree).without_missing()
    restore = "unpack the official archive again" if source.archives else "restore or remove them"
    if missing and not (partial and existing.is_usable()):
        remedy = f"{restore}, or {PARTIAL}" if existing.is_usable() else restore
        raise UserError(f"{source.name}: {len(missing):,} images are missing: {first_few(missing)}: {remedy}")
    if source.num_classes not in (None, len(existing.classes)):
        raise UserError(
            f"{source.name}: {source.title} has {source.num_classes} classes, {tree} has "
            f"{len(existing.classes)}: {restore}"
        )
    wrong = [
        f"{expected:,} {kind} images, found {actual:,}"
        for kind, expected, actual in (
            ("training", source.train_images, len(existing.train)),
            ("test", source.test_images, len(existing.test)),
        )
        if expected not in (None, actual)
    ]
    if wrong and not partial:
        raise UserError(f"{source.name}: expected {' and '.join(wrong)} in {tree}: {restore}, or {PARTIAL}")
    return existing, not (missing or wrong)

"""The prepared datasets of a recipe: one official dataset, several merged ones, or a user's image folder."""

import math
from pathlib import Path

import numpy as np

from cskd.data.folders import ProgressReport, no_report
from cskd.data.prepare import get_source, open_prepared, prepare, prepared_folder
from cskd.data.sources.base import Archive, DatasetSource
from cskd.data.sources.image_folder import image_folder_source
from cskd.data.splits import Split
from cskd.data.store import Dataset, merge
from cskd.utils.cli import absolute
from cskd.utils.errors import UserError
from experiments.config.settings import MERGED, Data

IMAGE_FOLDER = "image-folder"


def parts_of(recipe: str, data: Data) -> dict[str, Data]:
    """Return the datasets that a recipe needs, by name. Recipes of one official dataset share its files."""
    if data.parts is not None:
        return {part: Data(reader=part) for part in data.parts}
    return {recipe if data.reader == IMAGE_FOLDER else data.reader: data}


def source_of(recipe: str, data: Data) -> DatasetSource:
    """Return the source of a recipe's images, or of one part. Raises UserError for a wrong reader or folder."""
    if data.reader != IMAGE_FOLDER:
        if data.folder is not None:
            raise UserError(f"recipe {recipe}: 'data.folder' needs 'reader: {IMAGE_FOLDER}': remove one of them")
        return get_source(data.reader)
    if data.folder is None:
        raise UserError(f"recipe {recipe}: set 'data.folder' to the folder of the images")
    folder = absolute(data.folder, "data.folder")
    is_relative = not Path(data.folder).expanduser().is_absolute()
    return image_folder_source(recipe, folder=data.folder if is_relative else str(folder))


def open_data(recipe: str, data: Data, data_dir: Path, *, test: bool = True) -> Dataset:
    """Return the prepared dataset. test: False does not open its test set.

    Raises UserError, with the command that prepares it, if it or one of its parts is missing.
    """
    return _join(recipe, data, {name: open_prepared(name, data_dir, test=test) for name in parts_of(recipe, data)})


def prepare_data(
    recipe: str, data: Data, data_dir: Path, *, partial: bool = False, report: ProgressReport = no_report
) -> Dataset:
    """Return the prepared dataset; if necessary, download and prepare it or its missing parts."""
    if data.reader != MERGED:
        (name,) = parts_of(recipe, data)
        return prepare(name, data_dir, partial=partial, source=source_of(recipe, data), report=report)
    parts, errors = {}, []
    for name, part in parts_of(recipe, data).items():

        def report_part(stage: str, done: int, total: int | None, name: str = name) -> None:
            report(f"{name}: {stage}", done, total)

        try:
            parts[name] = prepare_data(name, part, data_dir, partial=partial, report=report_part)
        except UserError as error:
            errors.append(f"{name}: {str(error).removeprefix(f'{name}: ')}")
    if errors:
        raise UserError(f"{recipe} lacks {'; also '.join(errors)}")
    return merge(recipe, parts)


def is_prepared(recipe: str, data: Data, data_dir: Path) -> bool:
    """Return True if all parts are prepared. Raises UserError for data that cannot be prepared."""
    return not unprepared_sources(recipe, data, data_dir)


def unprepared_sources(recipe: str, data: Data, data_dir: Path) -> list[DatasetSource]:
    """Return the sources of the parts that are not prepared. Raises UserError for data that cannot be prepared."""
    sources = [source_of(name, part) for name, part in parts_of(recipe, data).items()]
    return [source for source in sources if not (prepared_folder(source.name, data_dir) / "dataset.json").exists()]


def expected_data(recipe: str, data: Data, data_dir: Path) -> Dataset | None:
    """Return a dataset without pixels, with the official numbers of classes and images, to plan before a download.

    Parts that are prepared are opened. None if a user's own images are not prepared: their number is unknown.
    """
    missing = {source.name: source for source in unprepared_sources(recipe, data, data_dir)}
    if any(source.num_classes is None for source in missing.values()):
        return None
    parts = {
        name: _without_pixels(missing[name]) if name in missing else open_prepared(name, data_dir)
        for name in parts_of(recipe, data)
    }
    return _join(recipe, data, parts)


def _join(recipe: str, data: Data, parts: dict[str, Dataset]) -> Dataset:
    return merge(recipe, parts) if data.reader == MERGED else next(iter(parts.values()))


def _without_pixels(source: DatasetSource) -> Dataset:
    def split(images: int) -> Split:
        sizes = np.full((images, 2), source.image_size, np.int32)
        return Split.prepared(np.empty(0, np.uint8), np.arange(images) % source.num_classes, sizes)

    return Dataset(
        name=source.name,
        classes=tuple(map(str, range(source.num_classes))),
        train=split(source.train_images),
        test=split(source.test_images),
        digest=f"{source.name} is not prepared",
        complete=True,
        source="official numbers",
        short_side=min(source.image_size),
    )


def preparation_bytes(sources: list[DatasetSource], data_dir: Path) -> tuple[int, int]:
    """Return about how many bytes the preparation of these sources downloads, and how many it adds to DATA_DIR.

    DATA_DIR holds the archives, the prepared images and, for one source at a time, the unpacked archives.
    """
    downloads, prepared, unpacked = 0, 0, [0]
    for source in sources:
        archives = sum(archive.size for archive in source.archives)
        decoded = (source.train_images + source.test_images) * 3 * math.prod(source.image_size)
        prepared += archives if source.encoded else decoded
        downloads += sum(archive.size for archive in missing_archives(source, data_dir))
        if source.find(data_dir) is None and not source.reads_archives:
            unpacked.append(archives)
    return downloads, downloads + prepared + max(unpacked)


def missing_archives(source: DatasetSource, data_dir: Path) -> list[Archive]:
    """Return the archives that must be fetched to prepare the source."""
    if source.find(data_dir) is not None:
        return []
    folders = (data_dir, data_dir / "downloads")
    return [
        archive for archive in source.archives if not any((folder / archive.filename).exists() for folder in folders)
    ]

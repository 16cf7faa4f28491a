"""The prepared datasets of a recipe: one official dataset, several merged ones, or a user's image folder."""

from pathlib import Path

from cskd.data.folders import ProgressReport, no_report
from cskd.data.prepare import get_source, open_prepared, prepare, prepared_folder
from cskd.data.sources.base import DatasetSource
from cskd.data.sources.image_folder import image_folder_source
from cskd.data.store import Dataset, merge
from cskd.utils.cli import absolute
from cskd.utils.errors import UserError
from experiments.config.recipe import MERGED, Data

IMAGE_FOLDER = "image-folder"


def parts_of(recipe: str, data: Data) -> dict[str, Data]:
    """Return the datasets that are prepared for a recipe, by name. Recipes of one official dataset share it."""
    if data.parts is not None:
        return {part: Data(reader=part) for part in data.parts}
    return {recipe if data.reader == IMAGE_FOLDER else data.reader: data}


def source_of(recipe: str, data: Data) -> DatasetSource:
    """Return the source of a recipe's images, or of one part. Raises UserError for a bad reader or missing folder."""
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
    parts = {name: open_prepared(name, data_dir, test=test) for name in parts_of(recipe, data)}
    return merge(recipe, parts) if data.reader == MERGED else next(iter(parts.values()))


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
    for name, part in parts_of(recipe, data).items():
        source_of(name, part)
    return all((prepared_folder(name, data_dir) / "dataset.json").exists() for name in parts_of(recipe, data))

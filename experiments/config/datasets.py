"""The prepared data behind a recipe: official sets by name, alone or merged; a user's image folders by their recipe."""

from pathlib import Path

from cskd.data.prepare import get_source, open_prepared, prepare, prepared_folder
from cskd.data.sources.image_folder import image_folder_source
from cskd.data.sources.merged import merge
from cskd.data.sources.source import DatasetSource
from cskd.data.store import Dataset
from cskd.data.workspace import Report
from cskd.utils.errors import UserError
from experiments.config.recipe import MERGED, Data

IMAGE_FOLDER = "image-folder"


def parts_of(recipe: str, data: Data) -> dict[str, Data]:
    """What is prepared for a recipe, by name: recipes of one official set share it. Several for a merged set."""
    if data.parts is not None:
        return {part: Data(reader=part) for part in data.parts}
    return {recipe if data.reader == IMAGE_FOLDER else data.reader: data}


def source_of(recipe: str, data: Data) -> DatasetSource:
    """Where the images of a recipe, or of a part of it, come from.

    Raises UserError for an unknown reader or a missing folder key.
    """
    if data.reader != IMAGE_FOLDER:
        if data.folder is not None:
            raise UserError(f"recipe {recipe}: 'data.folder' goes with 'reader: {IMAGE_FOLDER}' only")
        return get_source(data.reader)
    if data.folder is None:
        raise UserError(f"recipe {recipe}: 'data.folder' must say where the images are")
    return image_folder_source(recipe, folder=data.folder)


def open_data(recipe: str, data: Data, data_dir: Path, *, test: bool = True) -> Dataset:
    """The prepared dataset; ``test=False`` leaves its test set closed.

    Raises UserError, with the command that prepares it, if it or a part of it is not there.
    """
    parts = {name: open_prepared(name, data_dir, test=test) for name in parts_of(recipe, data)}
    return merge(recipe, parts) if data.reader == MERGED else next(iter(parts.values()))


def prepare_data(
    recipe: str, data: Data, data_dir: Path, *, partial: bool = False, report: Report | None = None
) -> Dataset:
    """The dataset, prepared (or downloaded first) if it is not there; of a merged one, each part that is not."""
    if data.reader != MERGED:
        (name,) = parts_of(recipe, data)
        return prepare(name, data_dir, partial=partial, source=source_of(recipe, data), report=report)
    parts, errors = {}, []
    for name, part in parts_of(recipe, data).items():
        try:
            parts[name] = prepare_data(name, part, data_dir, partial=partial, report=_of_part(name, report))
        except UserError as error:
            errors.append(f"{name}: {str(error).removeprefix(f'{name}: ')}")
    if errors:
        raise UserError(f"{recipe} lacks {'; also '.join(errors)}")
    return merge(recipe, parts)


def _of_part(name: str, report: Report | None) -> Report | None:
    """The same report, with the part's name before each stage."""
    return report and (lambda stage, done, total: report(f"{name}: {stage}", done, total))


def is_prepared(recipe: str, data: Data, data_dir: Path) -> bool:
    """Whether all of it is there. Raises UserError for data that nothing could prepare."""
    for name, part in parts_of(recipe, data).items():
        source_of(name, part)
    return all((prepared_folder(name, data_dir) / "dataset.json").exists() for name in parts_of(recipe, data))

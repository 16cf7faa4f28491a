"""The prepared data behind a recipe: official sets by name, a user's image folders by their recipe."""

from pathlib import Path

from cskd.data.catalog import get_source, open_prepared, prepare, prepared_folder
from cskd.data.image_folder import image_folder_source
from cskd.data.source import DatasetSource
from cskd.data.store import Dataset
from cskd.data.workspace import Report
from cskd.errors import UserError
from experiments.recipe import Data

IMAGE_FOLDER = "image-folder"


def prepared_name(recipe: str, data: Data) -> str:
    """The name under which a recipe's data are prepared: recipes of one official set share them."""
    return recipe if data.reader == IMAGE_FOLDER else data.reader


def source_of(recipe: str, data: Data) -> DatasetSource:
    """Where a recipe's images come from. Raises UserError for an unknown reader or a missing folder key."""
    if data.reader != IMAGE_FOLDER:
        if data.folder is not None:
            raise UserError(f"recipe {recipe}: 'data.folder' goes with 'reader: {IMAGE_FOLDER}' only")
        return get_source(data.reader)
    if data.folder is None:
        raise UserError(f"recipe {recipe}: 'data.folder' must say where the images are")
    return image_folder_source(recipe, folder=data.folder)


def open_data(recipe: str, data: Data, data_dir: Path, *, test: bool = True) -> Dataset:
    """The prepared dataset; ``test=False`` leaves its test set closed.

    Raises UserError, with the command that prepares it, if it is not there.
    """
    return open_prepared(prepared_name(recipe, data), data_dir, test=test)


def prepare_data(
    recipe: str, data: Data, data_dir: Path, *, partial: bool = False, report: Report | None = None
) -> Dataset:
    """The dataset, prepared (or downloaded first) if it is not there."""
    source = source_of(recipe, data)
    return prepare(prepared_name(recipe, data), data_dir, partial=partial, source=source, report=report)


def is_prepared(recipe: str, data: Data, data_dir: Path) -> bool:
    return (prepared_folder(prepared_name(recipe, data), data_dir) / "dataset.json").exists()

"""Names of datasets and classes as figures show them."""

import re

from cskd.plots import plain

MAX_NAME_LENGTH = 24  # characters of a class name
DOMAIN = re.compile(r"^[\w-]+/(?=.)")  # the prefix of a merged dataset's class names


def class_name(name: str) -> str:
    """Return a readable class name: ``cub200/Black_footed_Albatross`` becomes ``Black footed Albatross``.

    Returns the first of several names (TinyImageNet's ``goldfish, Carassius auratus``); long names are cut.
    """
    read = " ".join(DOMAIN.sub("", name).split(", ")[0].replace("_", " ").split()) or name
    return plain(read if len(read) <= MAX_NAME_LENGTH else read[: MAX_NAME_LENGTH - 1] + "…")

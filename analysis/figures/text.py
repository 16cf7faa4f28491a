"""Names of datasets and classes as figures show them."""

import re

MAX_NAME_LENGTH = 24  # characters of a class name
DOMAIN = re.compile(r"^[\w-]+/(?=.)")  # before the class names of a merged set


def plain(text: str) -> str:
    r"""The text as matplotlib has to be given it to be drawn letter by letter: it takes ``$x$`` for mathematics."""
    return text.replace("$", r"\$")


def class_name(name: str) -> str:
    """A class as it is read: ``cub200/Black_footed_Albatross`` is ``Black footed Albatross``.

    Of several names (TinyImageNet's ``goldfish, Carassius auratus``) the first; long ones are cut.
    """
    read = " ".join(DOMAIN.sub("", name).split(", ")[0].replace("_", " ").split()) or name
    return plain(read if len(read) <= MAX_NAME_LENGTH else read[: MAX_NAME_LENGTH - 1] + "…")

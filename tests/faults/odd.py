"""Strategies for invalid and unusual input: command lines, environment variables, recipes and grids."""

import contextlib
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from hypothesis import strategies as st
from place import command_of
from pydantic import BaseModel

from cskd.methods import METHODS, build_method
from cskd.utils.cli import Parser
from experiments.config.recipe import RECIPES
from experiments.config.settings import Settings


@dataclass(frozen=True)
class Case:
    """One call of a command. names: an error must contain one of them; if empty, any error is accepted."""

    module: str
    arguments: tuple[str, ...]
    names: frozenset[str] = frozenset()
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # replace the content of digits.yaml or demo.yaml


def keys_of(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted names of all settings, nested ones included."""
    keys = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        for part in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                keys += keys_of(part, f"{prefix}{name}.")
    return keys


KEYS = [
    *keys_of(Settings),
    *(f"methods.{name}.{parameter}" for name in METHODS for parameter in build_method(name).parameters()),
    *("methods.cs-kd", "methods.mixup+cs-kd.mixup.alpha", "architectures.resnet18", "from_paper.cs-kd"),
]
WRONG_KEYS = ["widht", "schedule.epoch", "schedule.lr.x", "profiles", "", ".", "methods.", "data.reader.x", "0", "~"]
WRONG_KEYS += ["Schedule.epochs", "width ", "größe", "subset.classes.3", "methods.cskd.temperature", "__class__"]

# Values in YAML, or after the = of --set.
VALID = [
    "0", "1", "2", "3", "4", "8", "16", "17", "20", "50", "0.5", "0.1", "true", "false", "auto", "on", "fp32",
    "resized-crop", "pad-crop", "torchvision", "digits", "image-folder", "cs-kd", "resnet10", "densenet41", "[1]",
    "[1, 3]", "{classes: 3, images_per_class: 5}", "{images_per_class: 7}", "[0.5, 0.5, 0.5]",
]  # fmt: skip
INVALID = [
    "~", "-1", "-0.0", "1e400", "-1e400", ".nan", ".inf", "-.inf", "1e308", "1e-320", "1e39", "0x10", "0o17", "1_000",
    "012", "1:30", "190:20:30", "2001-01-01", "2001-02-31", "2001-12-14t21:59:43.10-05:00", "[]", "{}", "*x", "=",
    "yes", "null", "1024", "224", "1000000", "cifar100", "merged", "../..", "adacos", "kd", "'", "%", "|", "[[1]]", "",
    "9" * 30, "9" * 5000, "-" + "9" * 400, "[" * 1500, "é日本\u202e", "\t", "\x07", "\udcff", "- 1", "{a: 1}",
    "a\tb: c", "a: b: c", "? a", "{[a]: 1}", "{1: 2}", "{a: 1, a: 2}", "{<<: 3}", "{<<: {a: 1}}", "{cs-kd: 3}",
    "[3, 2]", "[1, 1]", "[.nan, 1, 1]", "[1e300, 0, 0]", "[1, 2, 3]", "&a [1]", "[&a 1, *a]", "[cub200, dogs]",
    "!!python/object/apply:os.system [x]", "!!binary aGk=", "!!set {a}", "!!float x", "!!int ''", "!t 1", "!!bool x",
    "!!timestamp x", "{classes: 99, images_per_class: 5}", "{classes: 3, images_per_class: 999}", "{resnet10: [x]}",
]  # fmt: skip

# Without NUL, which no process argument can contain, and without slashes, because some texts become folder names.
texts = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), max_size=20)
listed = st.sampled_from([*VALID, *INVALID])
values = st.one_of(listed, listed, listed, st.integers(0, 1030).map(str), st.floats().map(str), texts)
keys = st.one_of(*4 * [st.sampled_from(KEYS)], st.sampled_from(WRONG_KEYS), texts)


def names_in(key: str) -> set[str]:
    """Return a dotted key and its parts; an error may name any of them."""
    return {key, *key.split(".")} - {""}


# Valid commands that train nothing, but for the name of a method at their end.
DRY = {
    "experiments grid": ("demo", "--seeds", "0", "--dry-run", "--methods"),
    "experiments train": ("--dataset", "digits", "--dry-run", "--method"),
    "experiments tune": ("--dataset", "digits", "--dry-run", "--method"),
    "experiments ablate": ("--dataset", "digits", "--dry-run", "--method"),
    "experiments bench": ("--datasets", "digits", "--parts", "steps", "--turns", "1", "--steps", "1", "--methods"),
}


@st.composite
def overridden(draw, modules=tuple(DRY), instead: tuple[str, ...] = ("--dry-run",)) -> Case:
    """A valid command with one or two changed settings. instead: replaces ``--dry-run``."""
    pairs = draw(st.lists(st.tuples(keys, values), min_size=1, max_size=2))
    names, arguments, method = {"SET=", "argument --set"}, [], "cs-kd"
    for key, value in pairs:
        arguments += ["--set", f"{key}={value}"]
        names |= names_in(key) | {value}
        part = key.split(".")[1] if key.startswith("methods.") else "kd" if key.startswith("teacher") else ""
        method = part if part in METHODS else method
    module = draw(st.sampled_from(modules))
    method = "cs-kd" if module == "experiments ablate" else method  # few methods have a search space for it
    base = [text for word in DRY[module] for text in (instead if word == "--dry-run" else (word,))]
    return Case(module, (*base, method, *arguments), frozenset(names))


def launched() -> st.SearchStrategy[Case]:
    """A command with changed settings and the launcher ``print``, which trains nothing."""
    return overridden(("experiments grid", "experiments train"), ("--launcher", "print"))


# Values of options, whichever they belong to. Nothing is downloaded, and no value starts a long command.
ODD = [
    "0", "1", "2", "-1", "1e3", "nan", "", "1_0", "٣", "9" * 30, "9" * 5000, "0x1", " 1", "1.5", "1000001", "--",
    "é" * 300, "demo", "mini", "paper", "..", "demo/x", "print", "slurm", "resnet10", "resnet18", "all", "vgg",
    "resnet10 ", "cs-kd", "mixup+cs-kd", "cs-kd+mixup", "kd+kd", "+", "cs-kd+", "adacos+cs-kd", "é\n", "a/b",
    "default", "=", "digits", "cifar100", "merged", "cifar", "../digits", "DIGITS", "error", "ece,nll", "error,error",
    ",", "tpe", "grid", "steps", "reference", "table1", "schedule.epochs", "~nobody-here/x", "/dev/null", "/",
    "x" * 5000,
]  # fmt: skip
odd = st.one_of(st.sampled_from(ODD), st.sampled_from(ODD), texts)
COMMANDS = (*DRY, "experiments data", "experiments status", "analysis tables")


@functools.cache
def options_of(command: str) -> list[tuple[str, bool]]:
    """Return (option, whether it takes values) for every option of a command, from its parser."""
    with (
        mock.patch.object(Parser, "parse_args", autospec=True, side_effect=KeyboardInterrupt) as parse,
        contextlib.suppress(KeyboardInterrupt),
    ):
        command_of(command).main()
    actions = parse.call_args.args[0]._actions
    return [(name, action.nargs != 0) for action in actions for name in action.option_strings]


@st.composite
def mistyped(draw) -> Case:
    """A command with arguments or values that it may not accept."""
    command, more = draw(st.sampled_from(COMMANDS)), []
    for _ in range(draw(st.integers(1, 2))):
        name, takes_values = draw(st.sampled_from([*options_of(command), ("-x", False), ("", True)]))
        values = draw(st.lists(odd, min_size=1, max_size=2)) if takes_values else []
        more += [name, *values] if name else values
    names = {word.lstrip("-") for text in more for word in (text, text.upper(), text.replace("-", "_"))}
    # An empty argument is shown as '' or not at all. Without any data or runs, the error says only that.
    names |= {"''", "are required", "unrecognized", "argument --", "nothing is tracked", "no grid has been launched"}
    names |= {"cannot be downloaded", "is not prepared"}
    return Case(command, (*DRY[command], "cs-kd", *more) if command in DRY else tuple(more), frozenset(names))


FOLDERS = ("", "~nobody-here/x", "~", "x" * 5000, "y" * 300, "/dev/null/x", "/proc/x", "a\tb", "é 数", "relative", "..")
ADDRESSES = ("", "sqlite:///", "sqlite:////dev/null/x.db", "ftp://x", "http://", "://", "postgresql://u:p@x/y", "x")
ADDRESSES += ("mysql+nodriver://a", "file:///nowhere", "sqlite:///" + "x" * 300, "x" * 300, "é", "~", "/dev/null")
VARIABLES = {
    **dict.fromkeys(["RUNS_DIR", "DATA_DIR", "RESULTS_DIR", "TUNED_DIR"], FOLDERS),
    **dict.fromkeys(["MLFLOW_TRACKING_URI", "OPTUNA_STORAGE"], ADDRESSES),
    "COLUMNS": ("", "-1", "x", "1", "99999"),
}


@st.composite
def elsewhere(draw) -> Case:
    """A valid command with an unusual environment variable."""
    name = draw(st.sampled_from(list(VARIABLES)))
    value = draw(st.one_of(*2 * [st.sampled_from(VARIABLES[name])], texts))
    others = {"experiments status": (), "analysis tables": (), "experiments data": ("digits",)}
    module = draw(st.sampled_from([*DRY, *others]))
    arguments = (*DRY[module], "cs-kd") if module in DRY else others[module]
    tuned = ("--tuned",) if name == "TUNED_DIR" and module == "experiments grid" else ()
    return Case(module, (*arguments, *tuned), environment={name: value})


@st.composite
def edited(draw, file: Path, *command: str) -> Case:
    """A dry run with a YAML file of which one or two lines are removed, repeated, followed by another, or changed."""
    lines, names = file.read_text().splitlines(), {file.name}
    for _ in range(draw(st.integers(1, 2))):
        at, key, value = draw(st.integers(0, len(lines) - 1)), draw(keys), draw(values)
        old = lines[at]
        word = draw(st.sampled_from([*re.finditer(r"[^\s,:{}\[\]#]+", old), re.match("", old)]))
        changed = old[: word.start()] + draw(st.sampled_from([key, value, value])) + old[word.end() :]
        added = draw(st.sampled_from([f"{key}: {value}", draw(texts)]))
        lines[at : at + 1] = draw(st.sampled_from([[], [old, old], [old, added], [changed], [changed]]))
        names |= {key, *names_in(key), *re.findall(r"[a-z][\w-]+", old)}
    return Case("experiments grid", command, frozenset(names - {""}), files={file.name: "\n".join(lines)})


def recipes() -> st.SearchStrategy[Case]:
    methods = st.sampled_from(["cs-kd", "kd", "mixup"])
    return methods.flatmap(lambda method: edited(RECIPES / "digits.yaml", *DRY["experiments grid"], method))


def grids() -> st.SearchStrategy[Case]:
    return edited(RECIPES.parent / "grids" / "demo.yaml", "demo", "--dry-run")

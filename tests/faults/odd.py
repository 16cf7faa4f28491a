"""Strategies for invalid and unusual input: command lines, environment variables, recipes and grids."""

from dataclasses import dataclass, field
from typing import Any

import yaml
from hypothesis import strategies as st
from pydantic import BaseModel

from cskd.methods import METHODS, build_method
from experiments.config.recipe import RECIPES
from experiments.config.settings import Settings

GRIDS = RECIPES.parent / "grids"


@dataclass(frozen=True)
class Case:
    """One call of a command. names: an error must contain one of them; if empty, any error is accepted."""

    module: str
    arguments: tuple[str, ...]
    names: frozenset[str] = frozenset()
    environment: dict[str, str] = field(default_factory=dict)
    recipe: str | None = None  # replaces the content of digits.yaml
    grid: str | None = None  # replaces the content of demo.yaml


def keys_of(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted names of all settings, nested ones included."""
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
VALID = ["0", "1", "2", "3", "4", "8", "16", "17", "20", "50", "0.5", "0.1", "true", "false", "auto", "on"]
VALID += ["fp32", "resized-crop", "pad-crop", "torchvision", "digits", "image-folder", "cs-kd", "resnet10", "[1]"]
VALID += ["[1, 3]", "{classes: 3, images_per_class: 5}", "{images_per_class: 7}", "[0.5, 0.5, 0.5]", "densenet41"]
INVALID = ["", "~", "-1", "-0.0", "1e400", "-1e400", ".nan", ".inf", "-.inf", "1e308", "1e-320", "1e39", "9" * 30]
INVALID += [
    "9" * 5000,
    "-" + "9" * 400,
    "0x10",
    "0o17",
    "1_000",
    "012",
    "1:30",
    "190:20:30",
    "2001-01-01",
    "2001-02-31",
]
INVALID += ["2001-12-14t21:59:43.10-05:00", "[]", "{}", "{a: 1}", "[3, 2]", "[1, 1]", "[.nan, 1, 1]", "[1e300, 0, 0]"]
INVALID += ["[1, 2, 3]", "[[1]]", "é日本\u202e", "\t", "a\tb: c", "a: b: c", "&a [1]", "[&a 1, *a]", "*x", "[" * 1500]
INVALID += ["!!python/object/apply:os.system [x]", "!!binary aGk=", "!!set {a}", "!!float x", "!!int ''", "!t 1"]
INVALID += ["!!bool x", "!!timestamp x", "? a", "{[a]: 1}", "{1: 2}", "{a: 1, a: 2}", "{<<: 3}", "{<<: {a: 1}}", "="]
INVALID += [
    "{classes: 99, images_per_class: 5}",
    "{classes: 3, images_per_class: 999}",
    "yes",
    "1024",
    "224",
    "1000000",
]
INVALID += [
    "cifar100",
    "merged",
    "../..",
    "adacos",
    "kd",
    "[cub200, dogs]",
    "{resnet10: [x]}",
    "{cs-kd: 3}",
    "- 1",
    "'",
]
INVALID += ["%", "|", "\x07", "\udcff", "null"]

# Without NUL, which no process argument can contain, and without slashes, because some texts become folder names.
texts = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), max_size=20)
listed = st.sampled_from([*VALID, *INVALID])
values = st.one_of(listed, listed, listed, st.integers(0, 1030).map(str), st.floats().map(str), texts)
keys = st.one_of(*4 * [st.sampled_from(KEYS)], st.sampled_from(WRONG_KEYS), texts)


def names_in(key: str) -> set[str]:
    """The parts of a dotted key; an error may name any of them."""
    return {key, *key.split(".")} - {""}


def option(name: str, *odd: str) -> st.SearchStrategy[tuple[str, ...]]:
    """An option with one or two values."""
    value = st.one_of(st.sampled_from(odd), st.sampled_from(odd), texts)
    return st.lists(value, min_size=1, max_size=2).map(lambda chosen: (name, *chosen))


def flag(*arguments: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.sampled_from(arguments).map(lambda argument: (argument,))


NUMBERS = ("0", "1", "2", "-1", "1e3", "nan", "", "1_0", "٣", "9" * 30, "9" * 5000, "0x1", " 1", "1.5", "1000001")
METHOD_NAMES = ("cs-kd", "kd", "mixup+cs-kd", "cs-kd+mixup", "kd+kd", "+", "cs-kd+", "all", "adacos+cs-kd", "", "é\n")
NETWORKS = ("resnet10", "resnet18", "densenet41", "all", "vgg", "", "resnet10 ")
DATASETS = ("digits", "cifar100", "merged", "cifar", "", "all", "../digits", "DIGITS", "é")
STRAY = st.one_of(
    flag("--help", "--dry-run", "-x", "--", "--set"), texts.map(lambda text: (text,)),
    st.sampled_from(["schedule.epochs", "=", "=3"]).map(lambda text: ("--set", text)),
)  # fmt: skip
SHARED = (STRAY, option("--profile", "demo", "mini", "paper", "", "..", "demo/x", "é"))
LAUNCHED = (
    *SHARED, option("--architectures", *NETWORKS), option("--workers", *NUMBERS), flag("--tuned", "--retry"),
    option("--launcher", "local", "print", "slurm", ""),
)  # fmt: skip
STUDIED = (
    *SHARED, option("--dataset", *DATASETS), option("--method", *METHOD_NAMES), option("--architecture", *NETWORKS),
    option("--seeds", *NUMBERS), option("--timeout", *NUMBERS), option("--workers", *NUMBERS),
    option("--study", "again", "a/b", "..", "é" * 300, "n\n", ""),
)  # fmt: skip
ARGUMENTS = {
    "experiments grid": (
        *LAUNCHED, option("--datasets", *DATASETS), option("--methods", *METHOD_NAMES), option("--seeds", *NUMBERS),
    ),
    "experiments train": (
        *LAUNCHED, option("--dataset", *DATASETS), option("--method", *METHOD_NAMES), option("--seed", *NUMBERS),
    ),
    "experiments tune": (
        *STUDIED, option("--trials", *NUMBERS), option("--space", "default", "paper", "x", ""), flag("--prune"),
        option("--objective", "error", "ece,nll", "error,error", ",", ""), option("--sampler", "grid", "tpe", "x", ""),
    ),
    "experiments ablate": STUDIED,
    "experiments bench": (
        *SHARED, option("--turns", *NUMBERS), option("--steps", *NUMBERS), option("--methods", *METHOD_NAMES),
        option("--architectures", *NETWORKS), option("--parts", "steps", "reference", "x"),
        option("--reference", "/", "", "~nobody-here"),
    ),
    "experiments data": (
        STRAY, flag("--partial", *DATASETS), option("--data-dir", "~nobody-here/x", "/dev/null", "", "x" * 5000),
    ),
    "experiments status": (STRAY, flag("demo", "table1", "x", "", "é")),
    "analysis tables": (
        STRAY, flag("--latest"), option("--experiment", "demo", "x", ""), option("--show", "error", "table1", "x"),
        option("--results-dir", "~nobody-here/x", "x" * 5000),
    ),
}  # fmt: skip
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
    names, arguments, method = {"SET="}, [], "cs-kd"
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


@st.composite
def mistyped(draw) -> Case:
    """A command with arguments or values that it may not accept."""
    module = draw(st.sampled_from(list(ARGUMENTS)))
    more = [text for words in draw(st.lists(st.one_of(*ARGUMENTS[module]), min_size=1, max_size=2)) for text in words]
    names = {word.lstrip("-") for text in more for word in (text, text.upper(), text.replace("-", "_"))}
    # An empty argument is shown as '' or not at all. Without any data or runs, the error says only that.
    names |= {"''", "are required", "unrecognized", "argument --", "nothing is tracked", "no grid has been launched"}
    names |= {"cannot be downloaded", "is not prepared"}
    return Case(module, (*DRY[module], "cs-kd", *more) if module in DRY else tuple(more), frozenset(names))


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


CHANGES = ("remove", "misspell", "value", "inner value", "inner value", "add", "twice", "line")


def flow(value: Any) -> str:
    """A value as one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("...\n").strip()


@st.composite
def edited(draw, content: dict[str, Any]) -> tuple[str, set[str]]:
    """(the text of the file after one or two changes, the names of the changed keys)."""
    lines = {key: flow(value) for key, value in content.items()}
    names = set()
    for change in draw(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=2)):
        key = draw(st.sampled_from(list(content)))
        names |= {key}
        if change == "remove":
            lines.pop(key, None)
        elif change == "misspell":
            lines[f"{key}x"] = lines.pop(key, "1")
        elif change == "value":
            lines[key] = draw(values)
        elif change == "inner value" and isinstance(content[key], dict):
            inner = {name: flow(value) for name, value in content[key].items()}
            name = draw(st.sampled_from(list(inner)))
            lines[key] = "{" + ", ".join(f"{key}: {text}" for key, text in (inner | {name: draw(values)}).items()) + "}"
        elif change == "add":
            added = draw(keys)
            names |= names_in(added)
            lines[added] = draw(values)
        elif change == "twice" and key in lines:
            lines[f"{key}: {lines[key]}\n{key}"] = draw(values)
        else:
            lines[draw(texts)] = draw(texts)
    return "\n".join(f"{key}: {value}" for key, value in lines.items()), names


@st.composite
def recipes(draw) -> Case:
    text, names = draw(edited(yaml.safe_load((RECIPES / "digits.yaml").read_text())))
    command = (*DRY["experiments grid"], draw(st.sampled_from(["cs-kd", "kd", "mixup"])))
    return Case("experiments grid", command, frozenset({"digits.yaml", *names}), recipe=text)


@st.composite
def grids(draw) -> Case:
    text, names = draw(edited(yaml.safe_load((GRIDS / "demo.yaml").read_text())))
    return Case("experiments grid", ("demo", "--dry-run"), frozenset({"demo.yaml", *names}), grid=text)

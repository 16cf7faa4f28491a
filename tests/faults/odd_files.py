"""Recipes and grids as somebody may have edited them."""

from typing import Any

import yaml
from faults.odd import DRY, Case, keys, names_in, texts, values
from hypothesis import strategies as st

from experiments.config.grid import GRIDS
from experiments.config.recipe import RECIPES

CHANGES = ("remove", "misspell", "value", "inner value", "inner value", "add", "twice", "line")


def flow(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("...\n").strip()


@st.composite
def edited(draw, content: dict[str, Any]) -> tuple[str, set[str]]:
    """(the text of a file in which one thing or two are changed, the names of these)."""
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
            lines[key] = "{" + ", ".join(f"{one}: {text}" for one, text in (inner | {name: draw(values)}).items()) + "}"
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

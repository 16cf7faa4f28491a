"""Random recipes, grids, command lines and environments: an error of one line, or a plan that can start."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from faults.odd import COMMANDS, Case, elsewhere, grids, launched, mistyped, options_of, overridden, recipes
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from place import Place, call

from cskd.data import prepare as preparation
from cskd.data.prepare import LOCK, prepare
from cskd.utils import cli
from cskd.utils.errors import UserError
from experiments.commands import grid as grid_command
from experiments.config import grid as grid_module
from experiments.config import recipe
from experiments.config.datasets import open_data
from experiments.launch import estimate
from experiments.launch.build import build_on
from experiments.launch.network import initialised_model
from experiments.runs.plan import PlannedRun, make_plan

CASES = st.one_of(*3 * [overridden()], launched(), *2 * [mistyped()], *2 * [recipes()], grids(), elsewhere())


def start(run: PlannedRun) -> None:
    """Build the trainer of a run, and train and test one batch: the last of an epoch, which is the smallest."""
    spec = run.spec
    dataset = open_data(spec.dataset, spec.settings.data, cli.data_dir())
    teacher = initialised_model(spec.teacher, run.num_classes) if spec.teacher else None
    trainer = build_on(spec, dataset, torch.device("cpu"), "fp32", teacher=teacher)
    *_, last = trainer.loader.epoch(0)
    loss, _ = trainer.step(trainer.method.transform(last, torch.Generator()))
    loss.backward()
    trainer.optimizer.step()
    trainer.model.eval()
    trainer.model(trainer.normalise(next(trainer.test_set.batches())[:1]))


def printed_forms(names: frozenset[str]) -> list[str]:
    """Return the forms in which an error prints a name or a part of a composite: as it is, escaped, or quoted."""
    parts = {part for name in names for part in (name, *name.split("+")) if part}
    return [form for part in parts for form in (part, cli.one_line(part), repr(part)[1:-1])]


def check(case: Case, files: Callable[[], set[Path]]) -> None:
    """Call the command of a case, and check its error or its plan. files: returns all files that it can write."""
    planned: list[PlannedRun] = []

    def record_plan(*arguments, **more):
        plan, runs = make_plan(*arguments, **more)
        planned.extend(runs)
        return plan, runs

    before, is_dry = files(), "--dry-run" in case.arguments
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid_command, "make_plan", record_plan)
        status, output, errors = call(case.module, *case.arguments)
    written = files() - before
    if status == 2:
        lines = errors.removesuffix("\n").split("\n")
        assert all(line.startswith("error: ") for line in lines), errors
        assert len(lines) == 1 or case.module == "experiments data", errors
        assert not case.names or any(name in errors for name in printed_forms(case.names)), f"unnamed: {errors}"
        assert not written, f"failed, but wrote {written}"
    else:
        assert (status, errors) == (0, "")
        assert output.strip()
        assert not (written and is_dry), f"a dry run wrote {written}"
        data_at_hand = "DATA_DIR" not in case.environment
        for run in {run.spec.cell: run for run in planned if data_at_hand}.values():
            start(run)
            assert is_dry or "print" not in case.arguments or run.folder.spec().run_key == run.spec.run_key


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    """Prepared digits, no network, and little memory, so that every case is short."""
    for command in COMMANDS:
        options_of(command)  # the first import of matplotlib writes into HOME, which each case replaces
    prepare("digits", tmp_path / "data")

    def no_network(archive, folder, report):
        raise UserError(f"{archive.filename} cannot be downloaded")

    monkeypatch.setattr(preparation, "download", no_network)
    monkeypatch.setitem(estimate.PROBE_PIXELS, "cpu", 0)  # the smallest batch
    monkeypatch.setattr(estimate, "free_memory", lambda device: 100_000_000)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return Place(tmp_path)


@pytest.mark.fault("random recipes, grids and command lines")
def test_random_input_gives_one_error_line_or_a_plan_that_can_start(tally, place):
    lost, folder, data = [], place.folder / "case", place.folder / "data"

    def files() -> set[Path]:
        return {path for top in (folder, data) for path in top.rglob("*") if path.name != LOCK}

    @settings(
        max_examples=tally.cases(2000, 60),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(CASES)
    def try_case(case):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        environment = Place(folder).environment | {"DATA_DIR": str(data), "HOME": str(folder)}
        if "print" in case.arguments:
            environment["MLFLOW_TRACKING_URI"] = place.uri  # a new database takes seconds
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            for name, value in (environment | case.environment).items():
                patch.setenv(name, value)
            for owner, name, file in ((recipe, "RECIPES", "digits.yaml"), (grid_module, "GRIDS", "demo.yaml")):
                if file in case.files:
                    (place.folder / name).mkdir(exist_ok=True)
                    (place.folder / name / file).write_bytes(case.files[file].encode(errors="surrogateescape"))
                    patch.setattr(owner, name, place.folder / name)
            try:
                with tally:
                    check(case, files)
            except Exception as error:
                lost.append(f"{case}: {type(error).__name__}: {error}")

    try_case()
    assert not lost, "\n".join(lost)

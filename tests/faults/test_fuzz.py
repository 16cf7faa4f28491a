"""Random recipes, grids, command lines and environments: an error of one line, or a plan that can start."""

import contextlib
import os
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch
from faults.odd import ARGUMENTS, Case, elsewhere, grids, launched, mistyped, overridden, recipes
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from place import Place, call, command_of

from cskd.data import prepare as preparation
from cskd.data.prepare import LOCK, prepare
from cskd.utils import cli
from cskd.utils.errors import UserError
from experiments.commands import grid as grid_command
from experiments.config import grid as grid_module
from experiments.config import recipe
from experiments.config.datasets import open_data
from experiments.launch import estimate
from experiments.launch.build import build_on, initialised_model
from experiments.runs.plan import PlannedRun, make_plan

CASES = st.one_of(*3 * [overridden()], launched(), *2 * [mistyped()], *2 * [recipes()], grids(), elsewhere())


class Fuzzing:
    """Calls commands in this process, each case in an empty folder, and checks every call."""

    def __init__(self, place: Place):
        self.place = place  # with the prepared digits
        self.planned: list[PlannedRun] = []  # by the last call
        self.number = 0

    def try_case(self, case: Case) -> str:
        """Return the error or the plan that the command prints. Raises AssertionError if a check fails."""
        self.number += 1
        folder = self.place.folder / f"case {self.number}"
        folder.mkdir()
        before = self._files(folder)
        with self._environment(case, folder):
            status, output, errors = call(case.module, *case.arguments)
            written = self._files(folder) - before
            if status == 2:
                lines = errors.removesuffix("\n").split("\n")
                assert all(line.startswith("error: ") for line in lines), errors
                assert len(lines) == 1 or case.module == "experiments data", errors
                assert not case.names or any(name in errors for name in _printed_forms(case.names)), (
                    f"unnamed: {errors}"
                )
                assert not written, f"failed, but wrote {written}"
            else:
                assert (status, errors) == (0, "")
                assert output.strip()
                is_dry = "--dry-run" in case.arguments
                assert not written or not is_dry, f"a dry run wrote {written}"
                for run in {run.spec.cell: run for run in self.planned}.values():
                    start(run)
                    if "print" in case.arguments and not is_dry:
                        assert run.folder.spec().run_key == run.spec.run_key
        shutil.rmtree(folder)
        return errors or output

    def _files(self, folder: Path) -> set[Path]:
        """Return all files that a case can write."""
        folders = (folder, Path(self.place.environment["DATA_DIR"]))
        return {path for top in folders for path in top.rglob("*") if path.name != LOCK}

    @contextlib.contextmanager
    def _environment(self, case: Case, folder: Path):
        """Set the environment, the working directory and the YAML files of a case."""
        self.planned.clear()
        environment = Place(folder).environment | {"DATA_DIR": self.place.environment["DATA_DIR"], "HOME": str(folder)}
        if "print" in case.arguments:
            environment["MLFLOW_TRACKING_URI"] = self.place.uri  # a new database takes seconds
        environment |= case.environment
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.chdir(folder))
            stack.enter_context(mock.patch.dict(os.environ, environment))
            stack.enter_context(mock.patch.object(grid_command, "make_plan", self._record_plan))
            for owner, name, file, text in (
                (recipe, "RECIPES", "digits.yaml", case.recipe),
                (grid_module, "GRIDS", "demo.yaml", case.grid),
            ):
                if text is not None:
                    yaml_folder = self.place.folder / name
                    yaml_folder.mkdir(exist_ok=True)
                    (yaml_folder / file).write_bytes(text.encode(errors="surrogateescape"))
                    stack.enter_context(mock.patch.object(owner, name, yaml_folder))
            yield

    def _record_plan(self, *arguments, **more):
        plan, runs = make_plan(*arguments, **more)
        self.planned += runs
        return plan, runs


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


def _printed_forms(names: frozenset[str]) -> list[str]:
    """Return the forms in which an error prints a name or a part of a composite: as it is, escaped, or quoted."""
    parts = {part for name in names for part in (name, *name.split("+")) if part}
    return [form for part in parts for form in (part, cli.one_line(part), repr(part)[1:-1])]


@pytest.fixture
def fuzzing(tmp_path, monkeypatch) -> Fuzzing:
    """Prepared digits, no network, and little memory, so that every case is short."""
    for command in ARGUMENTS:
        command_of(command)  # the first import of matplotlib writes into HOME, which each case replaces
    place = Place(tmp_path)
    prepare("digits", tmp_path / "data")

    def no_network(archive, folder, report):
        raise UserError(f"{archive.filename} cannot be downloaded")

    monkeypatch.setattr(preparation, "download", no_network)
    monkeypatch.setattr(estimate, "PROBE_PIXELS", 0)  # the smallest batch
    monkeypatch.setattr(estimate, "free_memory", lambda device: 100_000_000)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return Fuzzing(place)


@pytest.mark.fault("recipe, grid and command-line fuzzing")
def test_random_input_gives_one_error_line_or_a_plan_that_can_start(tally, fuzzing):
    lost = []

    @settings(
        max_examples=tally.cases(1995, 150),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(CASES)
    def try_case(case):
        try:
            with tally:
                fuzzing.try_case(case)
        except Exception as error:
            lost.append(f"{case}: {type(error).__name__}: {error}")

    try_case()
    assert not lost, "\n".join(lost)

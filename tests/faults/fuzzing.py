"""Commands called within this process with odd input, and what has to hold of each call."""

import contextlib
import io
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch
from faults.odd import ARGUMENTS, Case
from place import Place, command_of

from cskd.data.prepare import LOCK
from cskd.utils import cli
from cskd.utils.cli import data_dir
from experiments.commands import execute
from experiments.config import recipe
from experiments.config.datasets import open_data
from experiments.launch.build import build_on, initialised_model
from experiments.runs import plan
from experiments.runs.plan import PlannedRun

CPU = torch.device("cpu")
COMMANDS = {module: command_of(module) for module in ARGUMENTS}


@dataclass
class Fuzzing:
    """Calls cases, each in an empty folder, with the digits prepared elsewhere."""

    place: Place
    planned: list[PlannedRun] = field(default_factory=list)  # by the last call
    number: int = 0

    def try_case(self, case: Case) -> str:
        """Raises AssertionError where something does not hold. Returns what was told: an error, or what is planned."""
        self.number += 1
        folder = self.place.folder / f"case {self.number}"
        folder.mkdir()
        before = self._files(folder)
        with self._surroundings(case, folder):
            status, output, errors = self._call(case)
            written = self._files(folder) - before
            if status == 2:
                lines = errors.removesuffix("\n").split("\n")
                assert all(line.startswith("error: ") for line in lines), errors
                assert len(lines) == 1 or case.module == "experiments data", errors
                assert not case.names or any(name in errors for name in _shown(case.names)), f"names nothing: {errors}"
                assert not written, f"refused, but wrote {written}"
            else:
                assert (status, errors) == (0, "")
                assert output.strip()
                is_dry = "--dry-run" in case.arguments
                assert not written or not is_dry, f"a dry run wrote {written}"
                for run in _one_a_cell(self.planned):
                    start(run)
                    if "print" in case.arguments and not is_dry:
                        assert run.folder.spec().run_key == run.spec.run_key
        shutil.rmtree(folder)
        return errors or output

    def _files(self, folder: Path) -> set[Path]:
        """All that a case could write, as far as it keeps to its folders."""
        folders = (folder, Path(self.place.environment["DATA_DIR"]))
        return {path for top in folders for path in top.rglob("*") if path.name != LOCK}

    @contextlib.contextmanager
    def _surroundings(self, case: Case, folder: Path):
        """The environment, the files and the folder that the case is called in."""
        self.planned.clear()
        environment = Place(folder).environment | {"DATA_DIR": self.place.environment["DATA_DIR"], "HOME": str(folder)}
        if "print" in case.arguments:
            environment["MLFLOW_TRACKING_URI"] = self.place.uri  # to make a new one takes seconds
        environment |= case.environment
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.chdir(folder))
            stack.enter_context(mock.patch.dict(os.environ, environment))
            stack.enter_context(mock.patch.object(execute, "make_plan", self._recorded))
            stack.enter_context(mock.patch.object(sys, "argv", [case.module, *case.arguments]))
            for owner, name, file, text in (
                (recipe, "RECIPES", "digits.yaml", case.recipe),
                (plan, "GRIDS", "demo.yaml", case.grid),
            ):
                if text is not None:
                    written = self.place.folder / name
                    written.mkdir(exist_ok=True)
                    (written / file).write_bytes(text.encode(errors="surrogateescape"))
                    stack.enter_context(mock.patch.object(owner, name, written))
            yield

    def _call(self, case: Case) -> tuple[int, str, str]:
        """(exit status, output, errors) of the real main. What it raises passes: that is a traceback."""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                cli.run(COMMANDS[case.module].main)
            except SystemExit as ended:
                return ended.code or 0, output.getvalue(), errors.getvalue()
        raise AssertionError("the command did not end the process")

    def _recorded(self, *arguments, **more):
        made = plan.make_plan(*arguments, **more)
        self.planned += made[1]
        return made


def start(run: PlannedRun) -> None:
    """Everything that a run begins with, up to the last, smaller batch of its first epoch and a step on that."""
    spec = run.spec
    dataset = open_data(spec.dataset, spec.settings.data, data_dir())
    teacher = initialised_model(spec.teacher, run.num_classes) if spec.teacher else None
    trainer = build_on(spec, dataset, CPU, "fp32", teacher=teacher)
    *_, last = trainer.loader.epoch(0)
    loss, _ = trainer.step(trainer.method.transform(last, torch.Generator()))
    loss.backward()
    trainer.optimizer.step()
    trainer.model.eval()
    trainer.model(trainer.normalise(next(trainer.test_set.batches())[:1]))


def _one_a_cell(runs: list[PlannedRun]) -> list[PlannedRun]:
    return list({run.spec.cell: run for run in runs}.values())


def _shown(names: frozenset[str]) -> list[str]:
    """The names as errors show them, or the parts of a sum: as they are, or with what cannot be printed written out."""
    parts = {part for name in names for part in (name, *name.split("+")) if part}
    return [form for part in parts for form in (part, cli.one_line(part), repr(part)[1:-1])]

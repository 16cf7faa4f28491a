"""``kill -9`` while a run folder and a plan are made for the first time: the same command goes on."""

import itertools
import os
import sys

from run_folders import digits_spec, plan_of

from experiments.runs.folder import INTERRUPTED, MISSING, RUNNING, RunFolder
from experiments.runs.stored_plan import load_plans

SPEC = digits_spec()
FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.utime")


def start_run(runs_dir) -> RunFolder:
    """Do what a launch and its worker do before the first step."""
    folder = RunFolder.of(SPEC, runs_dir)
    folder.create(SPEC)
    plan_of(SPEC).save(runs_dir)
    with folder.leased() as lease:
        assert lease
        folder.remove_partial_files()
        folder.begin(0, 40)
        folder.write_environment("training", [{"started": 1.0}])
    return folder


def killed_at(moment: int, runs_dir) -> bool:
    """Start the run in a process that dies before its n-th access to a file; return False if it has fewer."""
    child = os.fork()
    if child == 0:
        moments = itertools.count()

        def die(event: str, arguments: tuple) -> None:
            if event in FILE_EVENTS and str(runs_dir) in str(arguments[0]) and next(moments) == moment:
                os._exit(9)

        sys.addaudithook(die)
        try:
            start_run(runs_dir)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_first_creation_that_is_killed_at_any_moment_is_made_again(tmp_path):
    for moment in itertools.count():
        runs_dir = tmp_path / str(moment)
        if not killed_at(moment, runs_dir):
            break
        assert RunFolder.of(SPEC, runs_dir).state()["state"] in (MISSING, RUNNING, INTERRUPTED)
        assert all(plan.cells for plan in load_plans(runs_dir))
        folder = start_run(runs_dir)
        assert (folder.spec(), folder.training_id()) == (SPEC, "training")
        assert [cell.runs for cell in load_plans(runs_dir)[0].cells] == [{SPEC.seed: SPEC.run_key}]
    assert moment > 10

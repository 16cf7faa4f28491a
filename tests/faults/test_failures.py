"""Runs that fail: a loss that is not finite, no memory, a crash. The reason is recorded, and the other runs finish."""

import math
import re

import pytest
from faults.disturbed import STEP, Disturbed, assert_uploaded_once, rows, strike, tag_of, tagged
from place import epoch_options

from experiments.runs.folder import DONE, FAILED

# The seventh step is step 3 of epoch 2.
LOSS = r"the loss is not finite from epoch 2, step 3 on: loss {0}, cross_entropy {0}, top1_error \S+, lr 0\.01"
NO_MEMORY = r"out of memory \(.*\): fewer WORKERS, or a smaller batch \(SET=batch_size=\.\.\., .*\)"
# What a worker does to itself, and the reason that is recorded. The run of seed 0 is undisturbed.
HARM = {
    "NAN": LOSS.format("nan"),
    "OVERFLOW": LOSS.format("(inf|nan)"),
    "NO_MEMORY_FOR_TORCH": NO_MEMORY,
    "NO_MEMORY_FOR_PYTHON": NO_MEMORY,
    "MEMORY_LIMIT": NO_MEMORY,
    "SIGSEGV": "the process ended by SIGSEGV",
    "SIGABRT": "the process ended by SIGABRT",
    "EXIT": "the process ended with status 0",
}
SEEDS = dict(enumerate(HARM, start=1))
COMMAND = ("experiments grid", "demo", "--methods", "cross-entropy", "--workers", "2", "--set", "width=4")


@pytest.mark.fault("a loss that is not finite, no memory, a crash")
@pytest.mark.slow_fault
def test_failed_runs_have_their_reason_and_are_trained_again_only_on_request(tally, tmp_path):
    place = Disturbed(tmp_path, *COMMAND, "--seeds", "0", *map(str, SEEDS), *epoch_options(3))
    status, output = place.strike(*(strike(STEP, 7, action, str(seed)) for seed, action in SEEDS.items()))
    shown = place.call("experiments status")[1]
    assert (status, len(place.hits())) == (1, len(SEEDS))
    assert "1 of 9 runs are done." in output
    assert "RETRY=1 runs the failed ones again" in output
    folders = {folder.spec().seed: folder for folder in place.folders()}
    assert folders.pop(0).state()["state"] == DONE
    for seed, folder in folders.items():
        with tally:
            state = folder.state()
            assert (state["state"], state["epoch"]) == (FAILED, 1)
            assert re.fullmatch(f"failed: {HARM[SEEDS[seed]]}", state["reason"])
            line = f"digits/resnet10/cross-entropy/seed{seed}: {state['reason']} (log: {folder.log})"
            assert output.count(line) == 2  # when it ended, and in the summary
            assert line in shown
            ((run, run_status),) = tagged(place.database, kind="run", run_key=folder.path.name)
            assert (run_status, tag_of(place.database, run, "reason")) == ("FAILED", state["reason"])
            query = "SELECT step FROM metrics WHERE run_uuid = ? AND key = 'train/loss'"
            assert rows(place.database, query, run) == [(0,)]
    before = [folder.state() for folder in place.folders()]
    with tally:
        assert place.call(*place.command)[0] == 1
        assert [folder.state() for folder in place.folders()] == before
    with tally:
        status, output, errors = place.call(*place.command, "--retry")
        assert (status, errors) == (0, "")
        assert "9 of 9 runs are done." in output
        assert_uploaded_once(place.database, place.folders())
        assert all(math.isfinite(folder.epochs()[-1]["metrics"]["train/loss"]) for folder in place.folders())

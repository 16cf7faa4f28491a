"""One run on several replicas, with gloo on the CPU: it equals an emulation in one process, and survives losses."""

import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from faults.disturbed import Disturbed, strike, wait_for
from place import Place, epoch_options, make_once
from replicas import Case, emulate, on_replicas, train

from cskd.methods import METHODS, PAPER_COMPOSITES
from experiments.runs.folder import INTERRUPTED, RunFolder

CASES = [Case(method, lr=0.01) for method in (*METHODS, *PAPER_COMPOSITES)]
RUN = ("--dataset", "digits", "--method", "mixup+cs-kd", "--set", "width=4", "--set", "replicas=2")
COMMAND = ("experiments train", *RUN, *epoch_options(24))
STEP = "cskd.train.step:Step.__call__"


@pytest.mark.cluster("DDP: every method on 2 and 4 replicas, uneven batches; stopped and resumed")
@pytest.mark.parametrize("count", [2, 4])
def test_replicas_equal_one_process_that_emulates_them(count, tally, tmp_path):
    torch.set_num_threads(1)
    calls = [
        *((train, case) for case in CASES),
        (train, CASES[0], None, None, True),
        (train, CASES[0], tmp_path, (count - 1, 4)),
        (train, CASES[0], tmp_path),
    ]
    *uninterrupted, compiled, stopped, resumed = on_replicas(count, *calls)
    for case, results in zip(CASES, uninterrupted, strict=True):
        expected = emulate(case, count)
        for result in results:
            with tally:
                assert result.error == ""
                # Two addends have one sum. More are added in the order of gloo's ring, which is not that of the ranks.
                equal = np.testing.assert_array_equal if count == 2 else assert_close
                for name, value in expected.state.items():
                    equal(result.state[name], value, err_msg=f"{case.method} {name}")
                equal(result.logits, expected.logits)
                for actual, metrics in zip(result.epochs, expected.epochs, strict=True):
                    equal([actual[name] for name in metrics], list(metrics.values()))
    for results in (stopped, resumed, compiled):
        for result, undisturbed in zip(results, uninterrupted[0], strict=True):
            with tally:
                if results is stopped:
                    assert (result.error, result.steps) == ("Interrupted()", 4)
                    continue
                equal = assert_close if results is compiled else np.testing.assert_array_equal
                for name, value in undisturbed.state.items():
                    equal(result.state[name], value, err_msg=name)


def assert_close(actual, expected, err_msg=""):
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4, err_msg=err_msg)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Place:
    """The run on two replicas, without losses."""

    def train_once(folder: Path) -> None:
        status, output, errors = Disturbed(folder).call(*COMMAND)
        assert (status, errors) == (0, ""), output

    return Place(make_once(tmp_path_factory, "undisturbed replicas", train_once))


@pytest.mark.cluster("DDP: a replica killed, the launch stopped, its worker killed; each time resumed")
def test_run_that_lost_a_replica_is_interrupted_and_resumes_exactly(undisturbed, tally, tmp_path):
    place = Disturbed(tmp_path, *COMMAND)
    with tally:
        status, output = place.strike(strike(STEP, 31, "SIGKILL", "rank1"))
        assert status == 1
        assert "interrupted: replica 1 was killed (SIGKILL)" in output
        (folder,) = place.folders()
        assert folder.state()["state"] == folder.summary()["state"] == INTERRUPTED
    with tally:
        process = place.launch()
        wait_for(lambda: has_trained(folder, start=2), process)
        process.send_signal(signal.SIGINT)
        status, output = place.end(process)
        # On a busy machine the replicas may take longer to end than the launch waits for them.
        assert (status, folder.state()["state"]) == (130, INTERRUPTED)
        _, alive = psutil.wait_procs(replicas_of(folder), timeout=20)
        assert not alive
    with tally:
        process = place.launch()
        wait_for(lambda: has_trained(folder, start=3), process)
        replicas = replicas_of(folder)
        replicas[0].parent().kill()
        status, output = place.end(process)
        assert (status, folder.state()["state"]) == (1, INTERRUPTED)
        _, alive = psutil.wait_procs(replicas, timeout=10)
        assert not alive
    with tally:
        place.repeat(undisturbed)
        assert len(folder.starts()) == 4


@pytest.mark.cluster("DDP: a replica runs out of memory")
def test_failure_of_a_replica_is_the_runs(tally, tmp_path):
    place = Disturbed(tmp_path, *COMMAND)
    with tally:
        status, output = place.strike(strike(STEP, 31, "NO_MEMORY_FOR_TORCH", "rank1"))
        assert status == 1
        assert "failed: out of memory" in output


def has_trained(folder: RunFolder, start: int) -> bool:
    """Return True if the run was started so many times, and its last start has trained a step."""
    starts = folder.starts()
    return len(starts) == start and "first_step_seconds" in starts[-1]


def replicas_of(folder: RunFolder) -> list[psutil.Process]:
    """Return the processes that train a run on several replicas."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "experiments.launch.replica" in command and str(folder.path) in command:
            found.append(process)
    return found

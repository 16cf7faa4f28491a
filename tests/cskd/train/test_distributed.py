"""Two replicas train as one process that emulates them, to the bit. ``make test-clusters`` tries all methods."""

import numpy as np
import pytest
import torch
from replicas import Case, emulate, on_replicas, train

from cskd.batch import Replica

# mixed across the whole batch; draws and a network's buffers of each replica
CASES = (Case("mixup+cs-kd"), Case("permuted-partner"), Case("class-mean"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The results of all runs on two replicas, by name; each has the first replica's and the second's."""
    folder = tmp_path_factory.mktemp("run")
    calls = {
        **{case.method: (train, case) for case in CASES},
        "stopped": (train, CASES[0], folder, (1, 4)),
        "resumed": (train, CASES[0], folder),
        "diverged": (train, Case("cross-entropy", lr=1e18)),
    }
    return dict(zip(calls, on_replicas(2, *calls.values()), strict=True))


def assert_same_state(first, second):
    assert first.state.keys() == second.state.keys()
    for name, value in first.state.items():
        np.testing.assert_array_equal(value, second.state[name], err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)
def test_two_replicas_equal_one_process_that_emulates_them(case, trained):
    torch.set_num_threads(1)
    first, second = trained[case.method]
    assert (first.error, second.error) == ("", "")
    expected = emulate(case, 2)
    assert_same_state(first, expected)
    assert_same_state(second, expected)
    for result in (first, second):
        np.testing.assert_array_equal(result.logits, expected.logits)
        for actual, metrics in zip(result.epochs, expected.epochs, strict=True):
            assert {name: actual[name] for name in metrics} == metrics
    assert "test/top1_error" in first.epochs[-1]


def test_all_replicas_stop_before_the_same_step_and_resume_exactly(trained):
    first, second = trained["stopped"]
    assert (first.error, second.error) == ("Interrupted()", "Interrupted()")
    assert first.steps == second.steps == 4  # in the second epoch
    for resumed, undisturbed in zip(trained["resumed"], trained["mixup+cs-kd"], strict=True):
        assert resumed.steps == 3
        assert_same_state(resumed, undisturbed)
        np.testing.assert_array_equal(resumed.logits, undisturbed.logits)
    assert trained["resumed"][0].epochs == trained["mixup+cs-kd"][0].epochs


def test_all_replicas_find_that_the_run_has_diverged(trained):
    for result in trained["diverged"]:
        assert "not finite from epoch 1, step 2 on" in result.error


@pytest.mark.parametrize("images", [1, 2, 3, 7, 8, 33, 64])
def test_parts_of_a_batch_are_disjoint_and_have_two_images_or_weight_0(images):
    replicas = [Replica(rank, 4) for rank in range(4)]
    rows = [replica.rows(images) for replica in replicas if replica.weight(images)]
    assert [row for part in rows for row in range(part.start, part.stop)] == list(range(images))
    assert all(part.stop - part.start >= min(2, images) for part in rows)
    assert sum(replica.weight(images) for replica in replicas) == pytest.approx(4)
    assert all(len(range(images)[replica.rows(images)]) for replica in replicas)

"""Several seeds packed into one step compute what each computes alone."""

import csv

import pytest
import torch

from experiments.bench.images import made_up
from experiments.bench.ours import Ours
from experiments.bench.packing import Packed
from experiments.recipe import load_settings


@pytest.mark.parametrize("method", ["cross-entropy", "cs-kd", "mixup+cs-kd"])
def test_the_packed_seeds_are_trained_as_they_are_alone(method):
    profile, settings = load_settings("digits", None, ("precision=fp32", "batch_size=8", "width=4"))
    settings = settings.model_copy(update={"subset": None})
    dataset = made_up("digits", settings, batches=3)

    def runs():
        return [
            Ours(dataset, profile, settings, "resnet10", method, seed=seed, uncounted=1, counted=2) for seed in (0, 1)
        ]

    apart, packed = runs(), Packed([run.trainer for run in runs()], counted=2, compiled=False)
    before = {name: value.clone() for name, value in packed.parameters.items()}
    assert packed.turn(0) > 0
    for run in apart:
        run.turn(0)
    assert any((packed.parameters[name] - value).abs().max() > 1e-3 for name, value in before.items())
    for seed, run in enumerate(apart):
        for stacked, alone in (
            (packed.parameters, run.trainer.model.named_parameters()),
            (packed.buffers, run.trainer.model.named_buffers()),
        ):
            for name, value in alone:
                torch.testing.assert_close(stacked[f"model.{name}"][seed], value, atol=1e-5, rtol=1e-4)


def test_packing_is_measured_against_one_seed_after_another(call, tmp_path):
    arguments = ("--parts", "packing", "--datasets", "digits", "--set", "batch_size=8", "--turns", "1", "--steps", "1")
    status, output, errors = call("experiments.bench", *arguments)
    assert (status, errors) == (0, "")
    with (tmp_path / "results" / "bench" / "packing.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["seeds"]) for row in rows] == [("cross-entropy", "3"), ("cs-kd", "3")]
    for row in rows:
        ratio = float(row["seconds_packed"]) / float(row["seconds_apart"])
        assert float(row["ratio"]) == pytest.approx(ratio, rel=1e-3)
    assert "packed" in output

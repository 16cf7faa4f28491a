"""How many runs a launch trains at once, and with how many threads."""

import pytest

from cskd.utils.errors import UserError
from experiments.config.recipe import load_settings
from experiments.launch import options
from experiments.launch.options import LaunchOptions, workers_or_auto


def settings_of(dataset: str, profile: str):
    return load_settings(dataset, profile)[1]


def test_auto_is_one_run_a_gpu_or_as_many_as_the_cores_allow(monkeypatch):
    mini, paper = settings_of("cifar100", "mini"), settings_of("cifar100", "paper")
    monkeypatch.setattr(options, "usable_cores", lambda: 8)
    gpus = []
    monkeypatch.setattr(options, "visible_gpus", lambda: gpus)
    auto = LaunchOptions(workers=workers_or_auto("auto"))
    assert (mini.threads, paper.threads) == (1, None)
    assert auto.with_workers([mini]).workers == 8
    assert auto.with_workers([mini], maximum=3).workers == 3
    assert auto.with_workers([mini, paper]).workers == 1  # a run of paper uses all cores
    gpus += ["0", "1"]
    assert auto.with_workers([mini]).workers == 2
    assert LaunchOptions(workers=5).with_workers([mini]).workers == 5
    assert LaunchOptions(launcher="slurm").with_workers([mini]).workers == 1


def test_number_of_workers_is_checked():
    with pytest.raises(UserError, match="WORKERS must be from 1 to 1000, not 0"):
        LaunchOptions(workers=workers_or_auto("0"))


def test_every_reduced_profile_trains_with_one_thread():
    reduced = [("digits", "demo"), ("cifar100", "small")]
    reduced += [(name, "mini") for name in ("cifar100", "cub200", "dogs", "merged", "mit67", "tinyimagenet")]
    assert {settings_of(*recipe).threads for recipe in reduced} == {1}

"""What suggests the next trial's hyper-parameters, by name: a factory from a seed.

A sampler is made anew before every ask, so it may hold nothing that the study's trials do not tell.
"""

from collections.abc import Callable

from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler

DEFAULT_SAMPLER = "gp"
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {  # a seed: 0 .. 2**32 - 1
    "gp": lambda seed: GPSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}

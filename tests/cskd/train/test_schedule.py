"""Learning rates against torch's schedulers, and the optimisers' settings."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR

from cskd.train.schedule import Schedule

CPU = torch.device("cpu")


def rates_of(schedule: Schedule, make_scheduler) -> list[float]:
    """Return torch's learning rate of each epoch."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=schedule.lr)
    scheduler, rates = make_scheduler(optimizer), []
    for _ in range(schedule.epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "make_scheduler"),
    [
        (Schedule(epochs=9, milestones=(3, 6)), lambda optimizer: MultiStepLR(optimizer, [3, 6], 0.1)),
        (Schedule(epochs=9, kind="cosine", milestones=()), lambda optimizer: CosineAnnealingLR(optimizer, 9)),
        (
            Schedule(epochs=9, kind="cosine", milestones=(), warmup_epochs=3),
            lambda optimizer: SequentialLR(
                optimizer, [LinearLR(optimizer, 1 / 4, total_iters=3), CosineAnnealingLR(optimizer, 6)], [3]
            ),
        ),
    ],
)
def test_rates_are_those_of_torch(schedule, make_scheduler):
    rates = [schedule.rate(epoch) for epoch in range(schedule.epochs)]
    assert rates == pytest.approx(rates_of(schedule, make_scheduler))


def test_optimisers_have_the_settings():
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    sgd = Schedule().make_optimizer(model, CPU)
    assert isinstance(sgd, torch.optim.SGD)
    [group] = sgd.param_groups
    assert len(group["params"]) == 4
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, 1e-4)
    schedule = Schedule(optimizer="adamw", momentum=0.8, beta2=0.99, weight_decay=0.05, decay_all=False)
    adamw = schedule.make_optimizer(model, CPU)
    assert isinstance(adamw, torch.optim.AdamW)
    matrices, vectors = adamw.param_groups
    assert (matrices["betas"], matrices["weight_decay"]) == ((0.8, 0.99), 0.05)
    assert ([p.dim() for p in matrices["params"]], [p.dim() for p in vectors["params"]]) == ([2], [1, 1, 1])
    assert vectors["weight_decay"] == 0

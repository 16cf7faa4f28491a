"""How often a checkpoint is written."""

import pytest
import torch

from cskd.train import checkpoint as checkpoints
from cskd.train.checkpoint import Checkpoints


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when it is told to."""
    now = [1000.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("epoch", "cost", "written"),
    [
        (60.0, 0.9, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),  # long epochs: after each
        (1.0, 0.01, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),  # cheap ones, too
        (1.0, 0.09, [1, 6]),  # 2 % of the time: 4.5 s
        (4.0, 5.0, [1, 9]),  # dear ones: after 30 s
    ],
)
def test_checkpoints_are_as_frequent_as_costs_little(clock, monkeypatch, tmp_path, epoch, cost, written):
    def write(*arguments, **options):
        clock[0] += cost

    monkeypatch.setattr(checkpoints, "write_sealed", write)
    kept, at = Checkpoints(tmp_path / "checkpoint.pt", "run"), []
    for number in range(1, 11):
        clock[0] += epoch
        if kept.is_due():
            kept.write({"next_epoch": number, "metrics": []})
            at.append(number)
    assert at == written


def test_without_a_file_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    none = Checkpoints(None, "run")
    assert none.is_due()
    none.write({"next_epoch": 1, "metrics": []})
    assert none.latest(None) is None
    assert not list(tmp_path.iterdir())


def test_the_latest_is_given_back_with_what_it_holds(tmp_path):
    kept = Checkpoints(tmp_path / "checkpoint.pt", "run")
    for number in (1, 2):
        kept.write({"next_epoch": number, "metrics": [{"train/loss": 0.5}], "model": {"w": torch.ones(2)}})
    file, state = Checkpoints(tmp_path / "checkpoint.pt", "run").latest(known_epochs=1)
    assert file == tmp_path / "checkpoint.pt"
    assert (state["next_epoch"], state["metrics"]) == (2, [{"train/loss": 0.5}])
    assert torch.equal(state["model"]["w"], torch.ones(2))
    file, state = kept.latest(known_epochs=0)
    assert (file, state["next_epoch"]) == (tmp_path / "previous.pt", 1)

"""What a training step takes of memory, and that a plan does not take more than there is."""

import psutil
import pytest
import torch
from arrays import random_split

from cskd.data.loader import Batch
from cskd.data.store import Dataset
from cskd.methods import METHODS, PAPER_COMPOSITES, build_method
from cskd.methods.base import ForwardCache
from cskd.utils.errors import UserError
from experiments.bench.images import noise_images
from experiments.bench.results import Cell
from experiments.config.recipe import load_settings
from experiments.config.spec import RunSpec, make_spec
from experiments.launch import estimate
from experiments.launch.build import initialised_model
from experiments.launch.estimate import Estimator, check_memory, step_bytes
from experiments.runs.folder import RunFolder
from experiments.runs.plan import PlannedRun

CPU = torch.device("cpu")


def spec(*overrides: str, method: str = "cross-entropy", architecture: str = "resnet10") -> RunSpec:
    profile, settings = load_settings("digits", None, overrides)
    split = random_split(20, 10)
    data = Dataset("digits", tuple("0123456789"), split, split, "d", True, "made up", 8)
    return make_spec("digits", data, profile, settings, architecture, method, 0)


@pytest.mark.parametrize("method", [*METHODS, *PAPER_COMPOSITES])
@pytest.mark.parametrize("architecture", ["resnet10", "densenet41"])
def test_it_is_what_a_real_step_keeps(architecture, method):
    one = spec(architecture=architecture, method=method)
    model, built = initialised_model(one, 10), build_method(one.method, one.parameters)
    teacher = initialised_model(one.teacher, 10) if one.teacher else None
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    labels = torch.arange(40) % 10
    batch = Batch({view: torch.rand(40, 3, 8, 8) for view in built.views}, labels, labels, 10)
    passes = ForwardCache(model, batch, lambda images: images, teacher)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = sum(term.weight * term.loss(passes) for term in built.terms())
    loss.backward()
    weights = sum(parameter.nbytes for net in filter(None, (model, teacher)) for parameter in net.parameters())
    gradients = sum(parameter.grad.nbytes for parameter in model.parameters() if parameter.grad is not None)
    real = weights + gradients + sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert step_bytes(one, 10, 40) == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize(
    "overrides", [("width=1024",), ("inputs.image_size=1024", "inputs.test_resize=1024", "width=64")]
)
def test_a_plan_of_a_network_that_is_too_large_is_refused_before_it_is_built(tmp_path, monkeypatch, overrides):
    monkeypatch.setattr(estimate, "free_memory", lambda device: 500_000_000)
    one = spec(*overrides)
    run = PlannedRun(one, RunFolder.of(one, tmp_path), 10, 20, 20)
    before = psutil.Process().memory_info().rss
    with pytest.raises(UserError, match=r"GB of memory, 0\.5 GB are free: lower 'width' .* 'inputs.image_size'"):
        Estimator().seconds(run)
    assert psutil.Process().memory_info().rss - before < 500_000_000


def test_the_memory_of_a_measured_step_is_given_back(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(estimate, "time_step", lambda run: done.append("measured") or (1.0, 1.0))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("given back"))
    one, estimator = spec(), Estimator()
    for _ in range(2):
        estimator.seconds_from_start(PlannedRun(one, RunFolder.of(one, tmp_path), 10, 20, 20))
    assert done == ["measured", "given back"]


def test_the_bench_makes_up_no_more_images_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(estimate, "free_memory", lambda device: 10_000_000)
    _, settings = load_settings("digits", None, ("batch_size=1000000",))
    with pytest.raises(UserError, match=r"0\.4 GB of memory, 0\.0 GB are free: lower 'batch_size' \(1000000\)"):
        noise_images(Cell("digits", "demo", settings, "resnet10"), 1)
    with pytest.raises(UserError, match="a step of 1,000,000 images takes"):
        check_memory(spec(), 10, 1_000_000, CPU)


@pytest.mark.parametrize(
    ("most", "used", "cached", "expected"),
    [("max", "5", 0, 10**15), ("3000", "1000", 0, 2000), ("3000", "4000", 0, 0), ("3000", "3000", 1200, 1200)],
)
def test_a_container_may_have_less_than_the_machine(tmp_path, monkeypatch, most, used, cached, expected):
    (tmp_path / "memory.max").write_text(f"{most}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text(
        f"anon 5\nfile 9999\ninactive_file {cached // 3}\nactive_file {2 * cached // 3}\n"
    )
    monkeypatch.setattr(estimate, "CGROUP", tmp_path)
    monkeypatch.setattr(estimate.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10**15}))
    assert estimate.free_memory(CPU) == expected

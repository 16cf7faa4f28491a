"""Estimates of memory and time, and the refusal of runs that do not fit."""

import psutil
import pytest
import torch
from run_folders import digits_spec, make_run, make_spec

from cskd.batch import Batch
from cskd.methods import build_method
from cskd.methods.base import ForwardCache
from cskd.utils.errors import UserError
from experiments.config.recipe import load_settings
from experiments.config.spec import RunSpec
from experiments.launch import estimate
from experiments.launch.estimate import Estimator, check_weights, probe_images, step_bytes
from experiments.launch.network import initialised_model
from experiments.runs.folder import RunFolder
from experiments.runs.plan import PlannedRun

CPU = torch.device("cpu")


def planned(run: RunSpec, folder) -> PlannedRun:
    return PlannedRun(run, RunFolder.of(run, folder), 10, 20, 20)


@pytest.mark.parametrize(
    ("method", "architecture"),
    [("cross-entropy", "densenet41"), ("kd+cs-kd", "resnet10"), ("cs-kd", "torchvision:regnet_y_400mf")],
)
def test_step_bytes_are_those_of_a_real_step(method, architecture):
    run = digits_spec(architecture=architecture, method=method)
    model, built = initialised_model(run, 10), build_method(run.method, run.parameters)
    teacher = initialised_model(run.teacher, 10) if run.teacher else None
    saved = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    labels = torch.arange(40) % 10
    batch = Batch({view: torch.rand(40, 3, 8, 8) for view in built.views}, labels, labels, 10)
    cache = ForwardCache(model, batch, lambda images: images, teacher)
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        loss = sum(term.weight * term.loss(cache) for term in built.terms())
    loss.backward()
    weights = sum(parameter.nbytes for net in filter(None, (model, teacher)) for parameter in net.parameters())
    gradients = sum(parameter.grad.nbytes for parameter in model.parameters() if parameter.grad is not None)
    expected = weights + gradients + sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    assert step_bytes(run, 10, 40) == pytest.approx(expected, rel=0.02)


def test_weights_of_another_network_are_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    torch.save(initialised_model(digits_spec(), 10).state_dict(), tmp_path / "resnet10.pt")
    check_weights(planned(digits_spec("weights=resnet10.pt", seed=1), tmp_path))
    with pytest.raises(
        UserError, match=r"digits/resnet18/cs-kd: weights=resnet10.pt: these weights are of another net"
    ):
        check_weights(planned(digits_spec("weights=resnet10.pt", architecture="resnet18"), tmp_path))


@pytest.mark.parametrize(
    ("dataset", "device", "images"),
    [("cifar100", "cpu", 32), ("cifar100", "cuda", 128), ("cub200", "cpu", 8), ("cub200", "cuda", 8)],
)
def test_time_is_measured_on_few_images_but_on_a_full_batch_of_small_ones_on_a_gpu(dataset, device, images):
    _, settings = load_settings(dataset, "paper", ())
    assert probe_images(settings, torch.device(device)) == images


def test_network_that_does_not_fit_is_refused_before_it_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "free_memory", lambda device: 500_000_000)
    before = psutil.Process().memory_info().rss
    with pytest.raises(UserError, match=r"GB of memory, 0\.5 GB are free: lower 'width' .* 'inputs.image_size'"):
        Estimator(1).seconds(planned(digits_spec("width=1024"), tmp_path))
    assert psutil.Process().memory_info().rss - before < 500_000_000


def test_step_is_timed_with_the_threads_that_a_run_has_beside_others(tmp_path, monkeypatch):
    threads, before = [], torch.get_num_threads()
    monkeypatch.setattr(estimate, "time_step", lambda run: threads.append(torch.get_num_threads()) or (1.0, 1.0))
    torch.set_num_threads(4)
    for setting in ("threads=null", "threads=1"):
        Estimator(2).seconds(planned(digits_spec(setting), tmp_path))
    torch.set_num_threads(before)
    assert threads == [2, 1]


def test_damaged_run_takes_its_whole_time_again(tmp_path):
    run = planned(make_run(tmp_path, make_spec(0)), tmp_path)
    run.folder.weights.write_bytes(b"damaged")
    assert Estimator(1).seconds(run) == 3 * 60.0

"""The stages of the part ``gpu`` that compare results: the first one that fails tells most.

A stage gets the ``Lab`` and returns what it measured, by name. It raises Failed, or any other exception.
"""

import copy
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cskd.evaluate.metrics import evaluate_predictions
from cskd.train.steps import set_rate
from cskd.train.trainer import Progress, Trainer
from experiments.bench.device import matmul_rate
from experiments.bench.gpu_trainers import FULL_BATCHES, Lab, made_up_images
from experiments.runs.environment import use_repeatable_kernels

Values = dict[str, Any]
CPU = torch.device("cpu")
EVERY_VIEW = frozenset({"x", "partner", "second", "clean"})


class Failed(Exception):
    """A result is not the expected one."""


class Skipped(Exception):
    """The stage has nothing to do here, and why."""


def check(condition: bool, problem: str) -> None:
    if not condition:
        raise Failed(problem)


def difference(values: list[Tensor], expected: list[Tensor]) -> float:
    """Return the L2 distance of two lists of tensors, relative to the norm of the second list."""
    flat, wanted = (
        torch.cat([value.detach().double().cpu().flatten() for value in side]) for side in (values, expected)
    )
    return float((flat - wanted).norm() / wanted.norm().clamp(min=1e-12))


def device_and_dtypes(lab: Lab) -> Values:
    """Check a product or sum in each type that training uses."""
    left = torch.arange(12.0).view(3, 4) / 8  # exact in every type
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        product = left.to(lab.device, dtype) @ left.to(lab.device, dtype).T
        check(torch.equal(product.float().cpu(), (left @ left.T).to(dtype).float()), f"a product in {dtype} is wrong")
    pixels = torch.arange(256, dtype=torch.uint8, device=lab.device)
    check(int(pixels[torch.tensor([255], device=lab.device)]) == 255, "reading a pixel by its index is wrong")
    check(int(pixels.long().sum()) == 32640, "a sum of integers is wrong")
    values = {"torch": torch.__version__, "python": platform.python_version(), "precision": lab.precision}
    if lab.device.type == "cuda":
        properties = torch.cuda.get_device_properties(lab.device)
        values |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "memory_gigabytes": round(properties.total_memory / 1e9, 1),
        }
    return values


def matrix_rate(lab: Lab) -> Values:
    return {"matmul_flops_per_second": matmul_rate(lab.device, lab.precision)}


def resident_input(lab: Lab) -> Values:
    """Check that the batches of an epoch, with order, partners and crops, are those of the CPU, to the bit."""
    images = made_up_images(lab.size, lab.size.few_images, seed=0)
    loader, expected = (lab.loader(images, EVERY_VIEW, device) for device in (lab.device, CPU))
    batches = 0
    for ours, theirs in zip(loader.epoch(1), expected.epoch(1), strict=True):
        check(torch.equal(ours.labels.cpu(), theirs.labels), f"the labels of batch {batches + 1} differ from the CPU's")
        for view, pixels in theirs.views.items():
            same = torch.equal(ours.views[view].cpu(), pixels)
            check(same, f"the view {view} of batch {batches + 1} differs from the CPU's")
        batches += 1
    draws = loader.draw(1).to(lab.device)
    rows = torch.arange(lab.size.batch_size, device=lab.device)
    at_cursor = loader.batch(draws, rows).views["partner"].cpu()
    check(torch.equal(at_cursor, next(expected.epoch(1)).views["partner"]), "the batch at a cursor is another one")
    return {"batches": batches}


def eager_step(lab: Lab) -> Values:
    """Check the loss and the gradient of a batch in fp32 against the CPU's, and the loss in bf16 against fp32."""
    use_repeatable_kernels("fp32", lab.device)
    loss, gradient = _gradient(lab.new_trainer(precision="fp32"))
    wanted, expected = _gradient(lab.new_trainer(precision="fp32", device=CPU))
    half, _ = _gradient(lab.new_trainer(precision="bf16"))
    use_repeatable_kernels(lab.precision, lab.device)
    values = {
        "loss_difference": abs(loss / wanted - 1),
        "gradient_difference": difference(gradient, expected),
        "bf16_loss_difference": abs(half / loss - 1),
    }
    check(values["loss_difference"] < 1e-4, f"the loss is {loss:.6g}, the CPU's {wanted:.6g}")
    check(values["gradient_difference"] < 1e-2, f"the gradient differs by {values['gradient_difference']:.2g}")
    check(values["bf16_loss_difference"] < 0.03, f"the loss is {half:.6g} in bf16, {loss:.6g} in fp32")
    return values


def compiled_step(lab: Lab) -> Values:
    """Check the loss and the gradient of the compiled step against the eager one."""
    if not lab.compiles:
        raise Skipped("steps are not compiled here")
    compiled, eager = lab.trainer(few=True), lab.new_trainer()
    with torch.no_grad():
        eager.model.load_state_dict(compiled.model.state_dict())
    (loss, gradient), (wanted, expected) = _gradient(compiled), _gradient(eager)
    compiled.model.zero_grad(set_to_none=True)
    values = {"loss_difference": abs(loss / wanted - 1), "gradient_difference": difference(gradient, expected)}
    check(values["loss_difference"] < 0.01, f"the loss is {loss:.6g}, of the eager step {wanted:.6g}")
    # In bf16, the two round differently in every layer; a wrong gradient differs by 1 and more.
    check(values["gradient_difference"] < 0.3, f"the gradient differs by {values['gradient_difference']:.2g}")
    return values


def captured_steps(lab: Lab) -> Values:
    """Check ten replays, with a change of the learning rate, against the same steps kernel by kernel."""
    trainer = lab.trainer(few=True)
    captured = trainer.steps.captured
    check(captured is not None, "the step was not captured")
    start = Snapshot(trainer)

    def weights_after(step) -> list[Tensor]:
        start.restore()
        captured.start_epoch(trainer.loader.draw(0))
        for number in range(FULL_BATCHES):
            set_rate(trainer.optimizer, 0.05 if number < FULL_BATCHES // 2 else 0.005)
            step()
        return [parameter.detach().clone() for parameter in trainer.model.parameters()]

    replayed, expected = weights_after(captured.replay), weights_after(captured.step_once)
    values = {"weight_difference": difference(replayed, expected)}
    values["identical"] = all(map(torch.equal, replayed, expected))
    check(values["weight_difference"] < 1e-3, f"the weights differ by {values['weight_difference']:.2g}")
    moved = difference(replayed, start.weights)
    check(moved > 1e-6, "the replays have not changed the weights")
    start.restore()
    captured.start_epoch(trainer.loader.draw(0))
    set_rate(trainer.optimizer, 0.0)
    captured.replay()
    check(difference(list(trainer.model.parameters()), start.weights) == 0, "a learning rate of 0 changes the weights")
    start.restore()
    return values


def last_batch(lab: Lab) -> Values:
    """Check an epoch with its smaller last batch against the same epoch without the captured step."""
    trainer = lab.trainer(few=True)
    captured, start = trainer.steps.captured, Snapshot(trainer)
    steps: list[Progress] = []
    metrics = trainer.train_epoch(1, on_step=steps.append)
    weights = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    check(steps[-1].images == lab.size.few_images, f"an epoch has {steps[-1].images} images")
    start.restore()
    trainer.steps.captured = None
    try:
        expected = trainer.train_epoch(1)
    finally:
        trainer.steps.captured = captured
    values = {
        "loss_difference": abs(metrics["train/loss"] / expected["train/loss"] - 1),
        "weight_difference": difference(weights, list(trainer.model.parameters())),
        "identical": metrics == expected,
    }
    start.restore()
    check(
        values["loss_difference"] < 1e-3, f"the loss is {metrics['train/loss']:.6g}, not {expected['train/loss']:.6g}"
    )
    check(values["weight_difference"] < 1e-2, f"the weights differ by {values['weight_difference']:.2g}")
    return values


def evaluation(lab: Lab) -> Values:
    """Check predictions in fp32 and their metrics against the CPU's."""
    use_repeatable_kernels("fp32", lab.device)
    trainer, reference = lab.new_trainer(precision="fp32"), lab.new_trainer(precision="fp32", device=CPU)
    trainer.train_epoch(0)
    reference.model.load_state_dict(trainer.model.state_dict())
    ours, theirs = trainer.predict(), reference.predict()
    use_repeatable_kernels(lab.precision, lab.device)
    pairs = [(getattr(ours, name), getattr(theirs, name)) for name in ("logits", "features")]
    logits, features = (difference([torch.from_numpy(a)], [torch.from_numpy(b)]) for a, b in pairs)
    check(logits < 1e-3 and features < 1e-3, f"logits differ by {logits:.2g}, features by {features:.2g}")
    arrays = [torch.from_numpy(getattr(ours, name)) for name in ("logits", "labels", "features")]
    on_device = evaluate_predictions(*(array.to(lab.device) for array in arrays))
    for name, value in evaluate_predictions(*arrays).items():
        tolerance = 0.2 if name == "recall_at_1" else 1e-9 * abs(value)  # R@1: distances in float64, on the CPU float32
        check(abs(on_device[name] - value) <= tolerance, f"{name} is {on_device[name]}, the CPU's {value}")
    return {"logit_difference": logits, "feature_difference": features, "metrics": len(on_device)}


def exact_resume(lab: Lab) -> Values:
    """Check that a run that resumes from its first epoch's checkpoint ends with the same weights and predictions."""
    with tempfile.TemporaryDirectory() as folder:
        file, copied = Path(folder) / "checkpoint.pt", Path(folder) / "copy" / "checkpoint.pt"
        copied.parent.mkdir()

        def copy_first(records: list) -> None:
            if len(records) == 1:
                shutil.copy(file, copied)

        whole = lab.captured(lab.new_trainer(checkpoint=file))
        expected = whole.run(on_checkpoint=copy_first)
        resumed = lab.captured(lab.new_trainer(checkpoint=copied))
        check(resumed.next_epoch == 1, f"the run resumes at epoch {resumed.next_epoch + 1}, not at 2")
        predictions = resumed.run()
        size = file.stat().st_size
    same = all(map(torch.equal, resumed.model.state_dict().values(), whole.model.state_dict().values()))
    check(same, "the weights differ from those of a run without a stop")
    check((predictions.logits == expected.logits).all(), "the predictions differ from those of a run without a stop")
    return {"checkpoint_megabytes": round(size / 1e6, 1)}


class Snapshot:
    """Network and momentum of a trainer. ``restore`` puts them back at the same place in memory."""

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self._model = copy.deepcopy(trainer.model.state_dict())
        self._momenta = {parameter: state["momentum_buffer"].clone() for parameter, state in self._states()}
        self.weights = [parameter.detach().clone() for parameter in trainer.model.parameters()]

    def _states(self):
        return self._trainer.optimizer.state.items()

    def restore(self) -> None:
        self._trainer.model.load_state_dict(self._model)
        for parameter, state in self._states():
            # The first step of SGD makes the momentum the gradient, as one from zeros does.
            momentum = self._momenta.get(parameter)
            state["momentum_buffer"].zero_() if momentum is None else state["momentum_buffer"].copy_(momentum)


def _gradient(trainer: Trainer) -> tuple[float, list[Tensor]]:
    """Return the loss of the first batch, and the gradient of each parameter."""
    trainer.model.train()
    loss, _ = trainer.step(next(trainer.loader.epoch(0)))
    trainer.model.zero_grad(set_to_none=True)
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in trainer.model.parameters()]

"""What memory a training step takes, reckoned without making it: a plan must not be what fills the machine."""

import re
from pathlib import Path

import psutil
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cskd.data.loader import Batch
from cskd.methods import build_method
from cskd.methods.base import ForwardCache
from cskd.utils.errors import UserError
from experiments.config.spec import RunSpec
from experiments.launch.build import initialised_model

CGROUP = Path("/sys/fs/cgroup")  # of a container, which may be given less than the machine has


def check_memory(spec: RunSpec, num_classes: int, images: int, device: torch.device) -> None:
    """Raises UserError, naming what can be made smaller, for a step that the device has no memory for."""
    settings = spec.settings
    check_free_memory(
        f"{spec.cell}: a step of {images:,} images",
        step_bytes(spec, num_classes, images),
        device,
        f"lower 'width' ({settings.width}), 'inputs.image_size' ({settings.inputs.image_size}) or 'batch_size' "
        f"({settings.batch_size})",
    )


def check_free_memory(what: str, needed: int, device: torch.device, remedy: str) -> None:
    free = free_memory(device)
    if needed > free:
        message = f"{what} takes about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free here"
        raise UserError(f"{message}: {remedy}")


def step_bytes(spec: RunSpec, num_classes: int, images: int) -> int:
    """Weights, their gradients, a teacher's weights, and what the method's passes keep for the backward pass."""
    method, size = build_method(spec.method, spec.parameters), spec.settings.inputs.image_size
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FakeTensorMode():  # shapes, without their content; torch's device meta would not do: autocast does not know it
        model = initialised_model(spec, num_classes)
        teacher = initialised_model(spec.teacher, num_classes) if spec.teacher else None
        labels = torch.zeros(images, dtype=torch.long)
        batch = Batch(dict.fromkeys(method.views, torch.empty(images, 3, size, size)), labels, labels, num_classes)
        passes = ForwardCache(model, batch, lambda view: view, teacher)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            for term in method.terms():
                term.loss(passes)
    saved = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return saved + 2 * _bytes(model) + (_bytes(teacher) if teacher else 0)


def free_memory(device: torch.device) -> int:
    """Bytes that a process can still have: of a GPU's own memory, or of this machine's, or of its container's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    try:
        most, used, parts = ((CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current", "stat"))
    except OSError:  # not in a container of this kind
        return free
    # Files that were read stay in memory until somebody needs the room: a prepared dataset is one.
    cached = sum(int(size) for size in re.findall(r"^(?:in)?active_file (\d+)$", parts, re.MULTILINE))
    return free if most == "max" else min(free, max(0, int(most) - int(used) + cached))


def _bytes(model: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())

"""Weights from which a network starts: a file, or a named set of torchvision or timm."""

import hashlib
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from cskd.models.classifier import Classifier
from cskd.models.external import build_backbone, is_external
from cskd.utils.errors import UserError, first_line

State = dict[str, Tensor]
SUFFIXES = (".pt", ".pth", ".bin")  # such a name is a file, not a set of a library
WRAPPERS = ("state_dict", "model")  # keys under which training scripts store the weights
PREFIX = "backbone."  # of this project's own networks
IN_A_LIBRARY = "network."  # of ``cskd.models.external``, inside the backbone


@lru_cache(maxsize=2)  # a plan of many runs reads them once
def load_weights(architecture: str, weights: str, folder: Path) -> tuple[State, str]:
    """Return (state of the backbone, SHA-256 of its names and values).

    Args:
        weights: a file of torch.save, in ``folder`` or with an absolute path; for a network of torchvision or timm also
            "default" or the name of a set, which the library downloads once.

    Raises UserError, with what to do, for weights that cannot be had.
    """
    path = folder / weights
    if path.is_file():
        state = _read(path)
    elif is_external(architecture) and path.suffix not in SUFFIXES:
        try:
            state = build_backbone(architecture, weights).state_dict()
        except UserError:
            raise
        except Exception as error:  # the libraries and their downloads raise many types
            reason = f"{architecture}: the weights {weights!r} cannot be had ({first_line(error)})"
            raise UserError(
                f"{reason}: name a set of this network, or set 'weights' to a file that you fetched"
            ) from error
    else:
        raise UserError(f"{architecture}: there is no file of weights {path}: set 'weights' to a file of torch.save")
    return state, _digest(state)


def start_from(model: Classifier, state: State) -> None:
    """Copy the state into the backbone; the head keeps its initial weights.

    The state may also hold a head. Raises UserError if it lacks a weight of the backbone, or has one of another shape.
    """
    backbone: nn.Module = model.backbone
    names = {
        name: next((given for given in (name, PREFIX + name, name.removeprefix(IN_A_LIBRARY)) if given in state), None)
        for name in backbone.state_dict()
    }
    missing = [name for name, given in names.items() if given is None]
    if missing:
        count = f"{len(missing)} of {len(names)} tensors are missing"
        raise UserError(f"these weights are of another network: {count}, first {missing[0]}")
    try:
        backbone.load_state_dict({name: state[given] for name, given in names.items()})
    except RuntimeError as error:
        raise UserError(f"these weights are of another network: {str(error).splitlines()[-1].strip()}") from error


def _read(path: Path) -> State:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another kind raises many types
        raise UserError(
            f"{path} is not a state_dict of torch.save ({first_line(error)}): choose another file"
        ) from error
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} is not a state_dict: save model.state_dict() with torch.save")
    return content


def _digest(state: State) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()

"""All of a training at one step, as one file: what it needs to go on as if nothing had happened."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from safelight.engines.diffusers.training.tensor_files import read_told, tensor_bytes, told
from safelight.engines.training import Course

if TYPE_CHECKING:
    import torch

_MARK = "$tensor"


@dataclass
class State:
    """Where a training is, apart from its weights and optimizer."""

    step: int = 0
    """Finished steps."""
    at_once: int = 0
    """Pictures that go through the network together; fewer than a batch where memory ran out."""
    losses: Sequence[float] = ()
    """Of all steps."""


def name_of(step: int) -> str:
    """What the checkpoint of a step is called."""
    return f"step-{step:07d}.safetensors"


def packed(state: State, parts: dict[str, object]) -> bytes:
    """A checkpoint as bytes, with its own digest.

    Args:
        state: where it is.
        parts: nested dicts and lists of tensors and JSON values.
    """
    tensors: dict[str, torch.Tensor] = {}
    facts = {
        "step": state.step,
        "at_once": state.at_once,
        "losses": list(state.losses),
        "parts": _apart(parts, "", tensors),
    }
    content = tensor_bytes(tensors, told(facts))
    return hashlib.sha256(content).digest() + content


def unpacked(content: bytes) -> tuple[State, dict[str, Any]] | None:
    """The same back; None where the bytes are not those that were written."""
    digest, rest = content[:32], content[32:]
    if hashlib.sha256(rest).digest() != digest:
        return None
    from safetensors.torch import load

    with TemporaryDirectory() as folder:
        file = Path(folder) / "state"
        file.write_bytes(rest)
        facts = cast("dict[str, Any]", read_told(file))
    tensors = {name: tensor.clone() for name, tensor in load(rest).items()}
    state = State(facts["step"], facts["at_once"], facts["losses"])
    return state, cast("dict[str, Any]", _together(facts["parts"], tensors))


def latest(course: Course) -> tuple[State, dict[str, Any]] | None:
    """The last checkpoint that is whole; None where there is none."""
    for name in course.checkpoints():
        content = course.read(name)
        found = None if content is None else unpacked(content)
        if found is not None:
            return found
    return None


def _apart(value: object, path: str, tensors: "dict[str, torch.Tensor]") -> object:
    import torch

    if isinstance(value, torch.Tensor):
        tensors[path] = value
        return {_MARK: path}
    if isinstance(value, dict):
        # numbers are keys of an optimizer's state, and JSON has none
        return [
            [key, _apart(inner, f"{path}/{key}", tensors)]
            for key, inner in cast("dict[object, object]", value).items()
        ]
    if isinstance(value, list | tuple):
        inside = cast("Sequence[object]", value)
        return {"list": [_apart(one, f"{path}/{at}", tensors) for at, one in enumerate(inside)]}
    return {"value": value}


def _together(kept: Any, tensors: "dict[str, torch.Tensor]") -> object:  # noqa: ANN401
    if isinstance(kept, list):
        return {key: _together(inner, tensors) for key, inner in cast("list[Any]", kept)}
    if _MARK in kept:
        return tensors[kept[_MARK]]
    if "list" in kept:
        return [_together(one, tensors) for one in kept["list"]]
    return kept["value"]

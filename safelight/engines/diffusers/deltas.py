"""What LoRA files and their kin do to the weights of a layer.

Each kind is the arithmetic of its paper, in float32: LoRA (Hu et al. 2021, arXiv:2106.09685), of
convolutions as well; LoHa (Hyeon-Woo et al. 2022, arXiv:2108.06098) and LoKr (Yeh et al. 2024,
arXiv:2309.14859), with Tucker's decomposition of kernels; DoRA (Liu et al. 2024,
arXiv:2402.09353); IA3 (Liu et al. 2022, arXiv:2205.05638) in the form of LyCORIS, whose vectors are
added to one; differences of whole weights, biases and norms.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, "torch.Tensor"]
_AROUND = frozenset({"alpha", "dora_scale", "scalar"})
"""What may stand beside the tensors of a kind."""


class UnfitError(ValueError):
    """Tensors that do not make up a change of this layer."""


def changed(
    tensors: Tensors, weight: "torch.Tensor", strength: float, config: Mapping[str, Any]
) -> "torch.Tensor":
    """The weight of a layer with a file's change in it.

    Args:
        tensors: of this layer, float32, by the words of `lora_files`.
        weight: float32, of a linear layer (out, in), a convolution (out, in, height, width) or a
            norm (channels).
        strength: 1 is the whole change, 0 none.
        config: peft's own of this layer, as far as it was kept: `lora_alpha`, `use_rslora`, `rank`.

    Raises:
        UnfitError: a part is missing, or the shapes are not those of the layer.
    """
    if {"weight"} <= tensors.keys():
        return weight + strength * _scaled_by_vector(tensors, weight)
    name = next((kind for kind in _KINDS if kind in tensors), None)
    if name is None:
        raise UnfitError(f"{', '.join(sorted(tensors))} is no change of a weight")
    needed, optional, of = _KINDS[name]
    _require(tensors, needed, optional)
    delta = of(tensors)
    if "scalar" in tensors:
        delta = delta * tensors["scalar"]
    delta = delta * _scale(tensors, name, config)
    if delta.numel() != weight.numel():
        raise UnfitError(f"it changes {tuple(delta.shape)}, the layer is {tuple(weight.shape)}")
    delta = delta.reshape(weight.shape)
    if "dora_scale" in tensors:
        delta = _with_magnitude(weight + delta, tensors["dora_scale"]) - weight
    return weight + strength * delta


def _require(tensors: Tensors, needed: frozenset[str], optional: frozenset[str]) -> None:
    missing = needed - tensors.keys()
    if missing:
        raise UnfitError(f"{', '.join(sorted(missing))} is missing")
    left = tensors.keys() - needed - optional - _AROUND
    if left:
        raise UnfitError(f"{', '.join(sorted(left))} has no place in it")


def _scale(tensors: Tensors, kind: str, config: Mapping[str, Any]) -> float:
    """alpha / rank; 1 where there is no rank, or nobody said an alpha."""
    rank = _rank(tensors, kind) or config.get("rank")
    if "alpha" in tensors and tensors["alpha"].numel() != 1:
        raise UnfitError(f"its alpha is {tuple(tensors['alpha'].shape)}, expected one number")
    alpha = float(tensors["alpha"]) if "alpha" in tensors else config.get("lora_alpha")
    if rank is None or alpha is None:
        return 1.0
    if not isinstance(alpha, int | float):
        raise UnfitError(f"its alpha is {alpha!r}")
    if not isinstance(rank, int) or rank < 1:
        raise UnfitError(f"its rank is {rank!r}")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") is True else rank)


def _rank(tensors: Tensors, kind: str) -> int | None:
    if kind == "down":
        return tensors["down"].shape[0]
    if kind == "hada_w1_a":
        return tensors["hada_w1_b"].shape[0]
    for part in ("lokr_w1_b", "lokr_t2", "lokr_w2_b"):  # two whole parts have none
        if part in tensors:
            return tensors[part].shape[0]
    return None


def _lora(tensors: Tensors) -> "torch.Tensor":
    import torch

    up, down = tensors["up"], tensors["down"]
    if up.shape[1] != (tensors["mid"] if "mid" in tensors else down).shape[0]:
        raise UnfitError(f"up is {tuple(up.shape)} and down {tuple(down.shape)}")
    if "mid" in tensors:
        return torch.einsum("oa,ab...,bi->oi...", up.flatten(1), tensors["mid"], down.flatten(1))
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def _loha(tensors: Tensors) -> "torch.Tensor":
    first = _low_rank(tensors, "hada_w1_a", "hada_w1_b", "hada_t1")
    return first * _low_rank(tensors, "hada_w2_a", "hada_w2_b", "hada_t2")


def _lokr(tensors: Tensors) -> "torch.Tensor":
    import torch

    first, second = (
        tensors[f"lokr_{part}"]
        if f"lokr_{part}" in tensors
        else _low_rank(tensors, f"lokr_{part}_a", f"lokr_{part}_b", f"lokr_t{part[1]}")
        for part in ("w1", "w2")
    )
    while first.dim() < second.dim():
        first = first.unsqueeze(-1)
    return torch.kron(first.contiguous(), second.contiguous())


def _low_rank(tensors: Tensors, a: str, b: str, core: str) -> "torch.Tensor":
    import torch

    _require(tensors, frozenset({a, b}), frozenset(tensors))
    if core in tensors:  # the ranks stand first in both factors
        return torch.einsum("ab...,ao,bi->oi...", tensors[core], tensors[a], tensors[b])
    return tensors[a] @ tensors[b]


def _scaled_by_vector(tensors: Tensors, weight: "torch.Tensor") -> "torch.Tensor":
    _require(tensors, frozenset({"weight", "on_input"}), frozenset())
    axis = 1 if bool(tensors["on_input"]) else 0
    vector = tensors["weight"].flatten()
    if weight.dim() < 2 or vector.shape[0] != weight.shape[axis]:
        raise UnfitError(f"it scales {vector.shape[0]}, the layer is {tuple(weight.shape)}")
    return weight * vector.reshape([-1 if at == axis else 1 for at in range(weight.dim())])


def _with_magnitude(weight: "torch.Tensor", magnitude: "torch.Tensor") -> "torch.Tensor":
    """Weights of which each column, or each row, has the length that was learnt for it."""
    import torch

    rows, columns = weight.shape[:2]
    by_column = magnitude.dim() > 1 and magnitude.shape[0] == 1 and magnitude.shape[1] == columns
    if magnitude.numel() != (columns if by_column else rows):
        raise UnfitError(f"its magnitude is {tuple(magnitude.shape)}")
    axis = 1 if by_column else 0
    others = [at for at in range(weight.dim()) if at != axis]
    length = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
    return weight * (magnitude.reshape(length.shape) / (length + torch.finfo(weight.dtype).eps))


_Of = Callable[[Tensors], "torch.Tensor"]
_KINDS: dict[str, tuple[frozenset[str], frozenset[str], _Of]] = {
    "down": (frozenset({"down", "up"}), frozenset({"mid", "diff_b"}), _lora),
    "up": (frozenset({"down", "up"}), frozenset({"mid", "diff_b"}), _lora),
    "hada_w1_a": (
        frozenset(f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b")),
        frozenset({"hada_t1", "hada_t2", "diff_b"}),
        _loha,
    ),
    **{
        first: (
            frozenset[str](),
            frozenset(f"lokr_{p}" for p in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2"))
            | {"diff_b"},
            _lokr,
        )
        for first in ("lokr_w1", "lokr_w1_a", "lokr_w2", "lokr_w2_a")
    },
    "diff": (frozenset({"diff"}), frozenset({"diff_b"}), lambda tensors: tensors["diff"]),
    "w_norm": (frozenset({"w_norm"}), frozenset({"b_norm"}), lambda tensors: tensors["w_norm"]),
}
"""By a tensor that only one kind has: what it needs, what it may have besides, and its change."""

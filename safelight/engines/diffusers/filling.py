"""Puts tensors of a file where a network of diffusers or transformers has them."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from safelight.engines.diffusers.accounts import Account, several
from safelight.engines.diffusers.stored import Stored
from safelight.errors import InvalidMediaError

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]


def empty(make: Callable[[], Any]) -> Any:  # noqa: ANN401  (the libraries are untyped)
    """A network whose weights take no memory yet."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        return make()


def filled(
    stored: Stored,
    start: str,
    expected: "Mapping[str, torch.Tensor]",
    place: Callable[[str], tuple[str, ...]],
    dtype: "torch.dtype",
    turned: Callable[[str, int], bool] = lambda *_: False,
) -> tuple[Tensors, Account]:
    """The tensors of a network, and which of the file's were used for them.

    Args:
        stored: the file.
        start: how the names of this network begin there.
        expected: the network's own tensors, for their names and sizes.
        place: names there of a tensor by its name behind `start`, in the order of its rows; none
            where the network has no place for it.
        dtype: what is computed in.
        turned: whether the two halves of a tensor change places, by name there and rows.

    Raises:
        InvalidMediaError: a tensor is of another size, or packed in a way that is not known.
    """
    made: Tensors = {}
    used: set[str] = set()
    for name, shape in stored.shapes.items():
        to = place(name.removeprefix(start)) if name.startswith(start) else ()
        if not to or any(each not in expected or each in made for each in to):
            continue
        rows = [int(expected[each].shape[0]) for each in to]
        wanted = (sum(rows), *expected[to[0]].shape[1:])
        tensor = stored.tensor(name, dtype)
        if shape != wanted and shape == (*wanted, 1, 1):  # attention was written as convolutions
            tensor = tensor[:, :, 0, 0]
        elif shape != wanted:
            raise InvalidMediaError(
                f"{name} of {stored.name} is {shape}, expected {wanted}: it is another network's",
                "get the whole model again",
            )
        pieces = tensor.split(rows) if len(to) > 1 else (tensor,)
        for each, piece in zip(to, pieces, strict=True):
            made[each] = _turned(piece) if turned(each, int(piece.shape[0])) else piece
        used.add(name)
    return made, Account(frozenset(used), {})


def require_whole(made: Tensors, expected: Mapping[str, object], what: str, name: str) -> None:
    """Refuse a network that lacks tensors, whose numbers would be made up.

    Raises:
        InvalidMediaError: with the first of them.
    """
    lacking = sorted(expected.keys() - made.keys())
    if lacking:
        raise InvalidMediaError(
            f"{name} lacks {len(lacking)} tensors of its {what}: {several(lacking)}",
            "get the whole model again",
        )


def _turned(piece: "torch.Tensor") -> "torch.Tensor":
    import torch

    first, second = piece.chunk(2)
    return torch.cat([second, first])

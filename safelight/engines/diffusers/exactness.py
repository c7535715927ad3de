"""Batches on the CPU that give each picture the values that it has alone.

The libraries behind torch choose another order of additions for some layers when more rows go
through them at once, which changes the last bits. Which layers those are depends on shapes, threads
and the machine, so it is looked at once for each: layers that differ get the rows of each picture
by themselves, and the whole network is compared before any of it is relied on. Few values can agree
by chance: layers that make few are given further inputs, and where a curve is computed value by
value the rule is followed by which torch divides them, not what is seen.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from safelight.engines.diffusers.drawing import Drawing
from safelight.engines.diffusers.model import DiffusionModel
from safelight.engines.machine.memory import is_out_of_memory

if TYPE_CHECKING:
    import torch

Rows = tuple[tuple[int, ...], ...]
"""Of each picture."""
LANES = 32
"""Values that torch's vectorized loops take at a time; the rest of a thread's part goes one by one,
through other code for curves such as SiLU (ATen/native/cpu/Loops.h)."""
ENOUGH = 8192
"""Values that must agree before a layer counts as one that does not mind a batch."""
GRAIN = 32768
"""Values of a part at least, where several threads share them (ATen/TensorIterator.h)."""
_Arguments = tuple[Any, ...]
_Named = dict[str, Any]


class NotExactError(Exception):
    """The pictures of this batch would not be what each is alone."""


@contextmanager
def as_alone(
    model: DiffusionModel,
    view: Any,  # noqa: ANN401  (diffusers is untyped)
    drawing: Drawing,
    pictures: int,
) -> Generator[None]:
    """Inside, the view gives each of so many pictures what it gets alone.

    Args:
        model: remembers what was found for it.
        view: one of its pipelines, with the drawing's add-ons on it. Its network gets the rows of
            each picture in the same place of equal parts, as guidance does it: all negative ones,
            then all others.
        drawing: one of those that are drawn together.
        pictures: in the batch.

    Raises:
        NotExactError: where it cannot; at the network's first call at the latest.
    """
    network = getattr(view, "unet", None) or getattr(view, "transformer", None)
    guided_by_pictures = drawing.all_controls or drawing.ip_adapter is not None
    if network is None or guided_by_pictures or not hasattr(view.vae, "enable_slicing"):
        raise NotExactError
    with ExitStack() as put_back:

        def before(_: object, args: _Arguments, kwargs: _Named) -> tuple[_Arguments, _Named]:
            looking.remove()
            kind = (pictures, drawing.loras, *_kind_of(args, kwargs))
            if kind not in model.apart:
                model.apart[kind] = _looked_at(network, pictures, args, kwargs)
            found = model.apart[kind]
            if found is None:
                raise NotExactError
            for name in found:
                put_back.enter_context(_apart(network.get_submodule(name), pictures))
            return args, kwargs

        looking = network.register_forward_pre_hook(before, with_kwargs=True)
        put_back.callback(looking.remove)
        yield


def _kind_of(args: _Arguments, kwargs: _Named) -> tuple[object, ...]:
    import torch

    shapes: list[object] = []
    _mapped(lambda tensor: shapes.append((tuple(tensor.shape), tensor.dtype)), (args, kwargs))
    return torch.get_num_threads(), *shapes


def _looked_at(
    network: "torch.nn.Module",
    pictures: int,
    args: _Arguments,
    kwargs: _Named,
) -> frozenset[str] | None:
    """The layers that need the rows of each picture by themselves; None when that is not enough."""
    rows = _rows_of(args, kwargs, pictures)
    if rows is None:
        return None
    try:
        return _different(network, rows, args, kwargs)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        if is_out_of_memory(error):
            raise
        return None  # it does not take the rows of one by themselves


def _different(
    network: "torch.nn.Module", rows: Rows, args: _Arguments, kwargs: _Named
) -> frozenset[str] | None:
    different: set[str] = set()
    inside = False

    def compare(
        name: str, layer: "torch.nn.Module", given: _Arguments, named: _Named, made: object
    ) -> None:
        nonlocal inside
        if inside or name in different:
            return
        inside = True
        try:
            if not (
                _is_divided_alike(layer, rows, made)
                and _is_as_alone(layer, rows, given, named, made)
                and all(
                    _is_as_alone(layer, rows, *other, layer(*other[0], **other[1]))
                    for other in _further(given, named, made)
                )
            ):
                different.add(name)
        finally:
            inside = False

    with ExitStack() as put_back:
        for name, layer in _layers(network):
            hook = layer.register_forward_hook(partial(compare, name), with_kwargs=True)
            put_back.callback(hook.remove)
        network(*args, **kwargs)
    with ExitStack() as put_back:
        for name in different:
            put_back.enter_context(_apart(network.get_submodule(name), len(rows)))
        together = network(*args, **kwargs)
    same = _is_as_alone(network, rows, args, kwargs, together)
    return frozenset(different) if same else None


def _layers(network: "torch.nn.Module") -> Iterator[tuple[str, "torch.nn.Module"]]:
    """The smallest parts; activations that hold a layer of their own are whole."""
    for name, layer in network.named_modules():
        inside = name.rpartition(".")[0]
        if _is_curve(layer) and layer is not network:
            yield name, layer
        elif next(layer.children(), None) is None and not _is_curve(network.get_submodule(inside)):
            yield name, layer


def _is_curve(layer: "torch.nn.Module") -> bool:
    bare = next(layer.children(), None) is None and next(layer.parameters(), None) is None
    return bare or type(layer).__module__ == "diffusers.models.activations"


def _is_divided_alike(layer: "torch.nn.Module", rows: Rows, made: object) -> bool:
    """Whether no value of a curve goes one by one, alone or in the batch."""
    import torch

    if not _is_curve(layer) or not isinstance(made, torch.Tensor):
        return True
    every = made.numel()
    return _has_no_rest(every) and _has_no_rest(every // len(rows))


def _has_no_rest(values: int) -> bool:
    import torch

    parts = min(torch.get_num_threads(), -(-values // GRAIN))
    part = -(-values // parts)
    return part % LANES == 0 and values % part % LANES == 0


def _rows_of(args: object, kwargs: object, pictures: int) -> Rows | None:
    """Which rows belong to each picture; None when the batch is of some other make."""
    sizes: list[int] = []
    _mapped(lambda tensor: sizes.append(tensor.shape[0] if tensor.ndim > 1 else 0), (args, kwargs))
    most = max(sizes, default=0)
    if most == 0 or most % pictures:
        return None
    return _rows(most, pictures)


def _rows(count: int, pictures: int) -> Rows:
    return tuple(tuple(range(at, count, pictures)) for at in range(pictures))


def _further(given: _Arguments, named: _Named, made: object) -> Iterator[tuple[_Arguments, _Named]]:
    """Other inputs of a layer that makes few values, until enough are compared."""
    import torch

    counts: list[int] = []
    _mapped(lambda tensor: counts.append(tensor.numel()), made)
    drawn = torch.Generator().manual_seed(0)

    def other(tensor: "torch.Tensor") -> "torch.Tensor":
        if not tensor.is_floating_point():
            return tensor
        return tensor * torch.empty_like(tensor).uniform_(0.5, 1.5, generator=drawn)

    for _ in range(ENOUGH // max(sum(counts), 1)):
        yield cast("tuple[_Arguments, _Named]", _mapped(other, (given, named)))


def _is_as_alone(
    layer: Callable[..., object], rows: Rows, given: _Arguments, named: _Named, made: object
) -> bool:
    import torch

    tensors: list[torch.Tensor] = []
    _mapped(tensors.append, made)
    for own in rows:
        args, kwargs = cast("tuple[_Arguments, _Named]", _taken(own, rows, (given, named)))
        alone: list[torch.Tensor] = []
        _mapped(alone.append, layer(*args, **kwargs))
        expected: list[torch.Tensor] = []
        _mapped(expected.append, _taken(own, rows, tuple(tensors)))
        if len(alone) != len(expected) or not all(map(torch.equal, alone, expected)):
            return False
    return True


def _taken(own: tuple[int, ...], rows: Rows, whole: object) -> object:
    """The rows of one picture, of all tensors that have rows of all."""
    count = len(rows) * len(rows[0])

    def take(tensor: "torch.Tensor") -> "torch.Tensor":
        return tensor[list(own)] if tensor.ndim and tensor.shape[0] == count else tensor

    return _mapped(take, whole)


def _mapped(change: Callable[["torch.Tensor"], object], whole: object) -> object:
    import torch
    from torch.utils import _pytree as pytree

    return pytree.tree_map_only(torch.Tensor, change, whole)


@contextmanager
def _apart(layer: "torch.nn.Module", pictures: int) -> Generator[None]:
    """The layer gets the rows of each picture by themselves."""
    import torch

    together = layer.forward

    def one_by_one(given: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:  # noqa: ANN401
        if given.shape[0] % pictures:
            return together(given, *others, **named)
        rows = _rows(given.shape[0], pictures)
        alone = [together(given[list(own)], *others, **named) for own in rows]
        # (pictures, rows of each, ...) to the order in which they came
        return torch.stack(alone).transpose(0, 1).flatten(0, 1).contiguous()

    layer.forward = one_by_one
    try:
        yield
    finally:
        del layer.forward

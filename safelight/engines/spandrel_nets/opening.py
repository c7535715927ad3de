"""Opens upscalers: of files, state dicts; of state dicts, networks. No pickle is ever executed."""

import warnings
from pathlib import Path
from typing import Any, cast

import torch

from safelight.confined.transport import Array
from safelight.engines.machine.memory import is_out_of_memory
from safelight.engines.spandrel_nets.library import EXTRA, PACKAGE, spandrel
from safelight.engines.spandrel_nets.told import Upscaler
from safelight.errors import InvalidMediaError
from safelight.installed import version
from safelight.weights.safety import check_files, is_pickled


def look(path: str) -> tuple[Upscaler, Array | None]:
    """Open a file of a stranger and tell what it is; for the confined process."""
    check_files([path])
    net = opened(Path(path))
    return Upscaler(
        architecture=str(net.architecture.name),
        purpose=str(net.purpose),
        scale=int(net.scale),
        input_channels=int(net.input_channels),
        output_channels=int(net.output_channels),
        supports_half=bool(net.supports_half),
        supports_bfloat16=bool(net.supports_bfloat16),
        parameters=sum(each.numel() for each in net.model.parameters()),
    ), None


def opened(path: Path) -> Any:  # noqa: ANN401  (a model descriptor of spandrel)
    """The network of a file that was looked into, on the CPU and ready to compute.

    Raises:
        InvalidMediaError: of no architecture that is known, or its tensors are not that one's.
    """
    library = spandrel()
    state = _state_of(path)
    try:
        with warnings.catch_warnings():  # old code of architectures, which says so on each load
            warnings.simplefilter("ignore")
            net = library.ModelLoader(device="cpu").load_from_state_dict(state)
    except library.UnsupportedModelError as error:
        raise InvalidMediaError(
            f"{path.name} has {len(state)} tensors, of no architecture that {PACKAGE} "
            f"{version(PACKAGE)} knows",
            f"choose another upscaler, or install {EXTRA} if it is one of those",
        ) from error
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise InvalidMediaError(
            f"{path.name} cannot be opened as an upscaler: {type(error).__name__} "
            f"{str(error)[:300]}",
            "download the file again",
        ) from error
    net.eval()
    net.model.requires_grad_(False)
    return net


def _state_of(path: Path) -> dict[str, Any]:
    """What a file holds; the content decides how it is read, not the extension."""
    try:
        if is_pickled(path):
            held: object = torch.load(path, map_location="cpu", weights_only=True)
        else:
            from safetensors.torch import load_file

            held = load_file(path)
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise InvalidMediaError(
            f"{path.name} cannot be read as weights: {str(error)[:300]}", "download the file again"
        ) from error
    if not isinstance(held, dict):
        raise InvalidMediaError(
            f"{path.name} holds a {type(held).__name__}, expected tensors by their names",
            "get the upscaler from its maker",
        )
    return cast("dict[str, Any]", held)

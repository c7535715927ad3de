"""Which device models run on, and in which number format."""

import ctypes
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from safelight.errors import DependencyMissingError
from safelight.installed import version
from safelight.settings import settings

if TYPE_CHECKING:
    import torch

# Intel's matrix routines, which torch draws with on a CPU, else add up in an order that depends on
# where in memory a tensor lies: the same seed would give other bytes now and then.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
CUDA_DRIVER = "libcuda.so.1"
"""Without it no build of torch for CUDA finds a device on Linux."""


def resolve_device(setting: str | None = None) -> str:
    """The device to use: `cpu`, `mps` or `cuda:0`.

    Args:
        setting: as `SAFELIGHT_DEVICE`; None takes the settings'.

    Raises:
        DependencyMissingError: the device asked for is not there.
    """
    return _resolve(setting or settings().device)


@lru_cache(maxsize=8)
def _resolve(setting: str) -> str:
    if setting == "cpu" or find_spec("torch") is None:
        return "cpu"
    if setting == "auto" and version("torch").endswith("+cpu"):
        return "cpu"  # what that build can do is known without its import, which takes a second
    import torch

    cuda, metal = torch.cuda.device_count(), torch.backends.mps.is_available()
    if setting == "auto":
        return "cuda:0" if cuda else "mps" if metal else "cpu"
    index = int(setting.partition(":")[2] or 0)
    if setting.startswith("cuda") and index >= cuda:
        raise DependencyMissingError(
            f"device {setting} is asked for, {cuda} CUDA devices are there",
            "set SAFELIGHT_DEVICE to auto, cpu or a CUDA index that exists",
        )
    if setting == "mps" and not metal:
        raise DependencyMissingError(
            "device mps is asked for, Metal is not available",
            "set SAFELIGHT_DEVICE to auto or cpu",
        )
    return f"cuda:{index}" if setting.startswith("cuda") else setting


def named(device: str) -> str:
    """A device by what it is, with its memory: `cuda:0` is another GPU on another machine."""
    if not device.startswith("cuda"):
        return device
    import torch

    found = torch.cuda.get_device_properties(torch.device(device))
    return f"{found.name} {found.total_memory >> 20} MiB"


def device_class() -> str:
    """`cpu`, `mps` or `cuda`: results are byte-identical only within one class.

    Every run asks, also one without a model: where it can, without the import of torch.
    """
    if settings().device == "auto" and sys.platform == "linux" and not _may_have_devices():
        return "cpu"
    return resolve_device().partition(":")[0]


@cache
def _may_have_devices() -> bool:
    build = version("torch") if find_spec("torch") else "+cpu"
    _, _, variant = build.partition("+")
    if variant and not variant.startswith("cu"):  # another maker's have drivers of other names
        return variant != "cpu"
    try:
        ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return False
    return True


def torch_dtype(device: str, precision: str) -> "torch.dtype":
    """The number format of models: `auto` is fp32 on the CPU and fp16 elsewhere."""
    import torch

    if precision == "auto":
        precision = "fp32" if device == "cpu" else "fp16"
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


@contextmanager
def full_precision(dtype: "torch.dtype") -> Generator[None]:
    """Convolve fp32 inside as fp32; cuDNN would cut the numbers to 10 bits (TF32) otherwise."""
    import torch

    if dtype != torch.float32:
        yield
        return
    convolutions = cast(Any, torch.backends.cudnn).conv  # its type says nothing of it
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before

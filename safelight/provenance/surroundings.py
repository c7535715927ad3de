"""Where a run took place: versions of what takes part, and what the device calls itself."""

import platform
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from safelight.installed import version

PACKAGES = (
    "safelight",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "safetensors",
    "ncnn",
    "av",
    "numpy",
    "pillow",
    "prefect",
    "pydantic",
)
"""Whose versions can change a result or how a run goes."""
ONE_OF_MANY = "drawn as number "
"""Begins the note of a picture whose last bits may depend on others that were drawn with it."""


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that take part; imports none of them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # an optional engine
    return found


def device_description(device_class: str) -> str:
    """What the device of a class calls itself, read from the system without a GPU library."""
    if device_class.startswith("cuda"):
        cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        names = [_line(card, "Model") for card in cards]
        return ", ".join(dict.fromkeys(name for name in names if name)) or "CUDA device"
    listed = _line(Path("/proc/cpuinfo"), "model name")
    return listed or platform.processor() or platform.machine()


def _line(file: Path, label: str) -> str:
    if not file.is_file():
        return ""
    for line in file.read_text("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == label:
            return value.strip()
    return ""

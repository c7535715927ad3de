"""The library spandrel, which tells architectures by names of tensors; imported here alone."""

import importlib
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from threading import Lock
from types import ModuleType
from typing import Any

from safelight.errors import DependencyMissingError
from safelight.installed import version

PACKAGE, EXTRA = "spandrel", "spandrel_extra_arches"
"""The second brings architectures whose licences forbid commercial use; used where it is there."""
NEEDS = (PACKAGE, "einops", "torch")
_TORCHVISION = "torchvision.transforms.functional"
_NAMES = ("InterpolationMode", "normalize", "rotate")
"""What spandrel takes from it, for a network that fills holes and for levels that one for faces is
given; we fill no holes and scale those levels ourselves, so nothing of it is ever called here."""
_importing = Lock()


def require_installed() -> None:
    """Refuse work that has nobody to do it; imports nothing.

    Raises:
        DependencyMissingError: spandrel, or what it needs, is not installed.
    """
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise DependencyMissingError(
            f"the package {missing[0]}, which opens upscalers and face restorers, is missing",
            "run pip install --no-deps spandrel==0.4.2 and pip install einops",
        )


def versions() -> str:
    """Of the libraries that a result depends on."""
    extra = f".extra{version(EXTRA)}" if find_spec(EXTRA) is not None else ""
    return f"{version(PACKAGE)}{extra}.torch{version('torch')}"


@lru_cache(maxsize=1)
def spandrel() -> Any:  # noqa: ANN401  (its types say little)
    """The library, with the architectures of its second package where that is installed.

    Raises:
        DependencyMissingError: as `require_installed`.
    """
    require_installed()
    with _importing, _without_torchvision():
        library = importlib.import_module(PACKAGE)
        if find_spec(EXTRA) is not None:
            importlib.import_module(EXTRA).install(ignore_duplicates=True)
    return library


@contextmanager
def _without_torchvision() -> Generator[None]:
    """Stand in for torchvision, which cannot be had beside every torch, while spandrel is imported.

    Nobody else gets to see what stands in: other libraries take what is there for the real one.
    """
    try:
        importlib.import_module(_TORCHVISION)
    except (ImportError, RuntimeError, OSError, AttributeError):  # its parts in C do not fit
        pass
    else:
        yield
        return
    parts = _TORCHVISION.split(".")
    stand_ins = {".".join(parts[: n + 1]): ModuleType(parts[n]) for n in range(len(parts))}
    for name in _NAMES:
        setattr(stand_ins[_TORCHVISION], name, None)
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module

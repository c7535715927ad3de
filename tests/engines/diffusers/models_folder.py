"""A folder of models that the engine of this process reads, on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from safelight.engines.machine.loaded import forget_loaded
from safelight.settings import reload_settings


@contextmanager
def models_from(folder: Path) -> Iterator[Path]:
    """Settings that name it, with a volume of its own inside; nothing stays loaded afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAFELIGHT_MODELS_DIR", str(folder))
        patch.setenv("VOLUME_ROOT", str(folder / "volume"))
        patch.setenv("SAFELIGHT_DEVICE", "cpu")
        reload_settings()
        yield folder
    reload_settings()
    forget_loaded()

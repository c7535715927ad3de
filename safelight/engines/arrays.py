"""Plain arithmetic on arrays: what the functions on pixels compute with, as an engine."""

from typing import ClassVar

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import ComputeRequest, LocalEngine, Request
from safelight.installed import version


class Arrays(LocalEngine):
    """numpy, on the CPU."""

    engine_id: ClassVar[str] = "numpy"
    array_library: ClassVar[str] = "numpy"

    def identity(self, request: Request) -> EngineIdentity:
        """Its version, and the revision of the stage's own arithmetic."""
        revision = request.revision if isinstance(request, ComputeRequest) else "0"
        return EngineIdentity(engine_id="numpy", version=f"{version('numpy')}+{revision}")


ENGINE = Arrays()

"""Moves a camera over a picture: what is left where no video model is installed."""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import ClassVar

from safelight.engines.films import FilmRequest
from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import AnimateRequest, Clip, LocalEngine, Request
from safelight.errors import DependencyMissingError
from safelight.installed import version
from safelight.media.camera import Camera, seen
from safelight.pixels import Pixels
from safelight.progress import note

REVISION = 1
"""Raised when a pixel changes."""


class LocalMotion(LocalEngine):
    """Pan, zoom and parallax over the picture itself; draws nothing and knows no model."""

    engine_id: ClassVar[str] = "local_motion"

    def identity(self, request: Request) -> EngineIdentity:
        """The same for every request, on every device.

        Raises:
            DependencyMissingError: a model is named, and there is none here.
        """
        if isinstance(request, AnimateRequest | FilmRequest) and request.model is not None:
            raise DependencyMissingError(
                f"local motion has no model {request.model!r}: it moves the picture itself",
                "leave model out, or put the model into the models folder",
            )
        return EngineIdentity(engine_id="local_motion", version=f"{version('pillow')}+{REVISION}")

    def animate(self, request: AnimateRequest, image: Pixels) -> Clip:
        """All frames of the camera's way over a picture, from the first moment to the last."""
        if request.prompt:
            note("the prompt took no part: it is for video models")
        return _moved(image, request.camera, request.motion, request.seconds, request.fps)

    def film(self, request: FilmRequest, draw: Callable[[], Pixels]) -> Clip:
        """The same over a picture that is drawn of the prompt."""
        image = draw()
        return _moved(image, request.camera, request.motion, request.seconds, request.fps)


def _moved(image: Pixels, camera: Camera, motion: float, seconds: float, fps: int) -> Clip:
    """Each frame is computed from the picture itself.

    Frames interpolated between a few of them were measured to be farther from what the camera sees,
    and to move in jerks where motion is slow.
    """
    note(
        f"no video model drew this: a camera moves over the picture ({camera}), "
        "and nothing in it moves by itself"
    )
    count = math.ceil(seconds * fps)

    def frames() -> Iterator[Pixels]:
        for at in range(count):
            yield seen(image, camera, motion, at / (count - 1))

    return Clip(frames(), Fraction(fps))


ENGINE = LocalMotion()

"""What an engine is, and what engines can do: one small protocol for each capability.

A stage says in a request what is to be done, with models by their names and no pixels; an engine
says at once whether it can, and as what its result counts, and does it when it is asked to. Neither
knows the other by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypedDict, runtime_checkable

from safelight.engines.add_on_use import AddOnUse, ControlUse
from safelight.engines.identity import EngineIdentity
from safelight.engines.results import NO_GUIDES, Clip, Face, Guides, Pictures
from safelight.errors import PipelineError
from safelight.media.camera import Camera
from safelight.media.video.retiming import Pending
from safelight.pixels import Pixels
from safelight.progress import step

EngineType = Literal["local", "remote"]
Refusal = PipelineError
"""Why something cannot be done: code, what was found, what to do next; a value at first."""


@dataclass(frozen=True)
class Request:
    """Names and numbers; everything besides inputs that a result depends on."""

    capability: ClassVar[type]
    """What an engine has to be to serve it."""


@runtime_checkable
class Engine(Protocol):
    """Something that does the work of stages, in this process or elsewhere."""

    @property
    def engine_id(self) -> str:
        """Name in presets, manifests and cache keys."""
        ...

    @property
    def engine_type(self) -> EngineType:
        """Remote engines work only where a preset names them: they may cost money."""
        ...

    @property
    def reproducible(self) -> bool:
        """Whether the same request gives the same bytes again on one class of device."""
        ...

    def health_check(self) -> Refusal | None:
        """Why it cannot be asked now, for instance because its server does not answer."""
        ...

    def verify_identity(self) -> Refusal | None:
        """Why it does not take us for who we are, for instance because a key is missing."""
        ...

    def check_balance(self, request: Request) -> Refusal | None:
        """Why the account cannot pay for a request."""
        ...

    def can(self, request: Request) -> Refusal | None:
        """Why it cannot serve a request; answers at once and loads nothing."""
        ...

    def identity(self, request: Request) -> EngineIdentity:
        """As what the result of a request counts: library, weights and device class.

        Loads nothing.

        Raises:
            PipelineError: as `can` answers.
        """
        ...


class LocalEngine(ABC):
    """What is the same for all engines of this process: nobody to ask, nothing to pay."""

    engine_type: ClassVar[EngineType] = "local"
    reproducible: ClassVar[bool] = True
    only_where_named: ClassVar[tuple[type, ...]] = ()
    """Capabilities that it is asked for only where a preset names it, as remote engines are."""

    def health_check(self) -> Refusal | None:
        """None: it is there as long as this process."""
        return None

    def verify_identity(self) -> Refusal | None:
        """None: nobody asks."""
        return None

    def check_balance(self, request: Request) -> Refusal | None:
        """None: it costs nothing."""
        del request
        return None

    def can(self, request: Request) -> Refusal | None:
        """Whatever has no identity cannot be served: a file, a name or a package is missing."""
        try:
            self.identity(request)
        except PipelineError as error:
            return error
        return None

    @abstractmethod
    def identity(self, request: Request) -> EngineIdentity:
        """See `Engine.identity`."""


@runtime_checkable
class Draws(Engine, Protocol):
    """Text to image."""

    def draw(self, request: "DrawRequest", guides: Guides = NO_GUIDES) -> Pictures:
        """As many pictures as the request says, of its size."""
        ...


@runtime_checkable
class Redraws(Engine, Protocol):
    """Image to image."""

    def redraw(
        self, request: "RedrawRequest", image: Pixels, guides: Guides = NO_GUIDES
    ) -> Pictures:
        """Draw over (H, W, 3) uint8 sRGB, sides multiples of 8."""
        ...


@runtime_checkable
class Fills(Engine, Protocol):
    """Inpainting."""

    def fill(
        self, request: "FillRequest", image: Pixels, mask: Pixels, guides: Guides = NO_GUIDES
    ) -> Pictures:
        """Paint anew where `mask`, (H, W) uint8, is 255; the caller puts the rest back exactly."""
        ...


@runtime_checkable
class MixesLatents(Engine, Protocol):
    """Pictures mixed in the latent space of a model."""

    def mix_latents(
        self, request: "LatentRequest", pictures: Sequence[Pixels], weights: Sequence[float]
    ) -> Pixels:
        """The weighted mean of (H, W, 3) uint8 sRGB pictures, all of one size."""
        ...


class Enlarging(Protocol):
    """An open enlarger; it may keep working memory between pictures."""

    @property
    def together(self) -> int:
        """How many threads may enlarge pictures at once; 1 where that gains nothing."""
        ...

    def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None] = step) -> Pixels:
        """Enlarge (H, W, 3) uint8 sRGB.

        Args:
            image: the picture.
            on_tile: called with how much is done and how much there is; what it raises ends the
                work.
        """
        ...

    def close(self) -> None:
        """Give working memory back."""
        ...


@runtime_checkable
class Enlarges(Engine, Protocol):
    """Super-resolution."""

    def open_enlarger(self, request: "EnlargeRequest") -> Enlarging:
        """Get ready to enlarge any number of pictures in one way."""
        ...


@runtime_checkable
class Animates(Engine, Protocol):
    """Image to video."""

    def animate(self, request: "AnimateRequest", image: Pixels) -> Clip:
        """At least as many seconds as asked for, beginning at (H, W, 3) uint8 sRGB."""
        ...


class Interpolating(Protocol):
    """An open interpolator, for the frames of one video."""

    def begin(self, first: Pixels, second: Pixels, timestep: float) -> Pending:
        """Begin to make the frame between two; what is returned waits for it.

        Args:
            first: (H, W, 3) uint8 sRGB.
            second: the frame after it, same shape.
            timestep: how far from the first (0) to the second (1).
        """
        ...


@runtime_checkable
class Interpolates(Engine, Protocol):
    """Frame interpolation."""

    def open_interpolator(self, request: "InterpolateRequest") -> Interpolating:
        """Get ready for one video."""
        ...


@runtime_checkable
class Computes(Engine, Protocol):
    """Arithmetic on arrays; there is nothing to ask for but as what it counts."""

    @property
    def array_library(self) -> str:
        """What the functions on pixels compute with."""
        ...


@runtime_checkable
class FindsFaces(Engine, Protocol):
    """Face detection."""

    def find_faces(self, request: "FaceRequest", image: Pixels) -> tuple[Face, ...]:
        """All faces of (H, W, 3) uint8 sRGB, from left to right."""
        ...


@dataclass(frozen=True, kw_only=True)
class PromptRequest(Request):
    """What all ways of drawing by a prompt have in common."""

    prompt: str
    """What the picture shows."""
    negative_prompt: str = ""
    """What it must not show."""
    seed: int | None = None
    """Of the first picture, each further one takes the next. Needed to draw, not to be asked."""
    steps: int = 20
    """Denoising steps."""
    guidance_scale: float = 7.5
    """How closely to follow the prompt."""
    num_images: int = 1
    """How many pictures."""
    model: str | None = None
    """Its name; None is the engine's own choice."""
    scheduler: str | None = None
    """Its name; None is the model's own."""
    loras: tuple[AddOnUse, ...] = ()
    """Applied together."""
    embeddings: tuple[str, ...] = ()
    """Textual inversions; their names are words for the prompt."""
    controlnets: tuple[ControlUse, ...] = ()
    """They steer the composition together, each by a control picture."""
    ip_adapter: AddOnUse | None = None
    """Takes a person or a style from reference pictures."""
    vae: str | None = None
    """Name of a VAE; None is the model's own."""
    clip_skip: int = 1
    """Which layer from the end of CLIP is read, as A1111 counts; 1 is the last."""


class PromptFields(TypedDict):
    """The same as arguments, for those who make one of several requests of the same parameters."""

    prompt: str
    negative_prompt: str
    seed: int | None
    steps: int
    guidance_scale: float
    num_images: int
    model: str | None
    scheduler: str | None
    loras: tuple[AddOnUse, ...]
    embeddings: tuple[str, ...]
    controlnets: tuple[ControlUse, ...]
    ip_adapter: AddOnUse | None
    vae: str | None
    clip_skip: int


@dataclass(frozen=True, kw_only=True)
class DrawRequest(PromptRequest):
    """Pictures from a prompt."""

    capability: ClassVar[type] = Draws
    width: int
    """Pixels."""
    height: int
    """Pixels."""


@dataclass(frozen=True, kw_only=True)
class RedrawRequest(PromptRequest):
    """A picture drawn over."""

    capability: ClassVar[type] = Redraws
    strength: float
    """0 gives the picture back, 1 keeps nothing of it."""


@dataclass(frozen=True, kw_only=True)
class FillRequest(PromptRequest):
    """The white part of a mask painted anew."""

    capability: ClassVar[type] = Fills
    strength: float
    """0 gives the picture back, 1 ignores what was there."""


@dataclass(frozen=True)
class LatentRequest(Request):
    """Pictures mixed as a model encodes them."""

    capability: ClassVar[type] = MixesLatents
    model: str | None = None
    """Its name; None is the engine's own choice."""


@dataclass(frozen=True)
class EnlargeRequest(Request):
    """Pictures, or the frames of a video, made larger."""

    capability: ClassVar[type] = Enlarges
    model: str
    """photo, anime, video, or a name that the engine knows."""
    factor: int
    """Output pixels per input pixel, along each side."""
    tile: int
    """Side of one tile, input px; for engines that work in tiles."""
    denoise: float = 0.0
    """0 to 1, how far noise is smoothed before."""
    video: bool = False
    """Whether the pictures are the frames of a video: very many, one after the other."""


@dataclass(frozen=True, kw_only=True)
class AnimateRequest(Request):
    """A short video of a picture."""

    capability: ClassVar[type] = Animates
    prompt: str = ""
    """What happens in it."""
    negative_prompt: str = ""
    """What must not."""
    seconds: float
    """How long it is."""
    fps: int
    """Rate of the result; where an engine gives fewer frames the others are interpolated."""
    motion: float = 0.5
    """0 to 1, how much moves."""
    camera: Camera = "zoom_in"
    """For engines that can only move a camera."""
    seed: int | None = None
    """Needed to draw, not to be asked."""
    steps: int = 25
    """Denoising steps."""
    guidance_scale: float | None = None
    """How closely to follow the prompt; None is the model's own."""
    model: str | None = None
    """Its name; None is the engine's own choice."""


@dataclass(frozen=True)
class InterpolateRequest(Request):
    """Frames between the frames of a video."""

    capability: ClassVar[type] = Interpolates
    target_fps: int
    """Nominal rate of the result."""


@dataclass(frozen=True)
class ComputeRequest(Request):
    """Arithmetic that a stage does itself, with functions on pixels."""

    capability: ClassVar[type] = Computes
    revision: str
    """Raised when the stage's arithmetic changes, so that no older result is taken for a new one.
    """


@dataclass(frozen=True)
class FaceRequest(Request):
    """The faces of a picture."""

    capability: ClassVar[type] = FindsFaces
    confidence: float
    """Score, 0 to 1, from which something counts as a face."""

"""What is asked of a text-to-image model."""

from dataclasses import dataclass, field
from pathlib import Path

from safelight.errors import MissingRequiredFieldError
from safelight.pixels import Pixels
from safelight.weights.add_ons import find_add_on
from safelight.weights.checkpoints import WeightsCard
from safelight.weights.hashing import weights_sha256
from safelight.weights.used import use


@dataclass(frozen=True)
class AddOn:
    """A LoRA, embedding, ControlNet, IP-Adapter or VAE from the models folder."""

    path: Path
    """Its file or folder."""
    sha256: str
    """Of its content."""
    weight: float = 1.0
    """How strongly it takes part."""
    text_weight: float | None = None
    """Of a LoRA: how strongly in the text encoders; None is `weight`."""


@dataclass(frozen=True)
class Control:
    """A ControlNet with its picture, and in which of the steps it takes part."""

    net: AddOn
    """With how strictly the picture is followed."""
    image: Pixels = field(compare=False)
    """(H, W, 3) uint8, same size as the result."""
    start: float = 0.0
    """Part of the steps that go by before it takes part, 0 to 1."""
    end: float = 1.0
    """Part of the steps after which it takes no part any more, 0 to 1."""


@dataclass(frozen=True)
class Drawing:
    """What all three ways of drawing have in common."""

    card: WeightsCard
    """The model."""
    prompt: str
    """What the picture shows."""
    seed: int
    """Of the first picture; each further one takes the next."""
    negative_prompt: str = ""
    """What it must not show."""
    steps: int = 20
    """Denoising steps."""
    guidance_scale: float = 7.5
    """How closely to follow the prompt."""
    num_images: int = 1
    """How many pictures."""
    scheduler: str | None = None
    """A name of `SAMPLERS`; None is the model's own."""
    loras: tuple[AddOn, ...] = ()
    """Applied together."""
    embeddings: tuple[AddOn, ...] = ()
    """Textual inversions; their stem is the word for the prompt."""
    controlnet: AddOn | None = None
    """Steers the composition by `control_image`."""
    control_image: Pixels | None = field(default=None, compare=False)
    """(H, W, 3) uint8, same size as the result."""
    controls: tuple[Control, ...] = ()
    """Further ones, which steer together with it."""
    ip_adapter: AddOn | None = None
    """Takes a person or style from `reference_images`."""
    vae: AddOn | None = None
    """Makes pictures of latents in place of the model's own."""
    clip_skip: int = 1
    """Which layer from the end of CLIP is read."""
    reference_images: tuple[Pixels, ...] = field(default=(), compare=False)
    """(H, W, 3) uint8 each."""

    @property
    def all_controls(self) -> tuple[Control, ...]:
        """All ControlNets that steer it."""
        if self.controlnet is None or self.control_image is None:
            return self.controls
        return (Control(self.controlnet, self.control_image), *self.controls)


def add_on(kind: str, name: str, weight: float, text_weight: float | None = None) -> AddOn:
    """A LoRA, embedding, ControlNet or IP-Adapter of the models folder.

    Args:
        kind: folder below the models folder: loras, embeddings, controlnet, ip_adapter or vae.
        name: stem of a .safetensors file there, or name of a folder.
        weight: how strongly it takes part.
        text_weight: of a LoRA, in the text encoders; None is `weight`.

    Raises:
        ForbiddenPathError: the name is a path, or a link leads out of the folder.
        DependencyMissingError: there is none of that name.
        UnsafePickleError: one of its files could run code when it is loaded.
    """
    path = find_add_on(kind, name)
    sha256 = weights_sha256(path)
    use(path, sha256)
    return AddOn(path, sha256, weight, text_weight)


def require_seed(seed: int | None) -> int:
    """The seed of a request; an engine never draws one by itself.

    Raises:
        MissingRequiredFieldError: there is none.
    """
    if seed is None:
        raise MissingRequiredFieldError(
            "the stage has no seed", "give seed a value, or let a flow draw it"
        )
    return seed

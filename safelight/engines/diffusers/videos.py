"""Image-to-video models through diffusers, by the pipeline class that the model's folder names."""

import inspect
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from safelight.engines.diffusers.calling import fitting_together, libraries
from safelight.engines.diffusers.frugal import decoder_in_tiles
from safelight.engines.diffusers.model import quiet
from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import AnimateRequest, Clip
from safelight.engines.machine.device import device_class, resolve_device, torch_dtype
from safelight.engines.machine.loaded import loaded
from safelight.engines.machine.memory import with_less_memory
from safelight.errors import DependencyMissingError, InvalidMediaError, MissingRequiredFieldError
from safelight.media.images import to_uint8
from safelight.pixels import Floats, Pixels
from safelight.progress import note, step
from safelight.settings import settings
from safelight.weights.hashing import files_of
from safelight.weights.pinned import pinned
from safelight.weights.videos import VideoModel, find_video_model

if TYPE_CHECKING:
    import torch

REVISION = "1"
"""Raised when the arithmetic around the library changes."""
FULL_BUCKET = 255
"""Motion bucket of Stable Video Diffusion that moves most."""
DECODED_TOGETHER = 4
"""Frames that its decoder works on at once."""


@dataclass(frozen=True)
class Family:
    """What the makers of a family of models trained it on; no config says so."""

    pipeline: str
    """The image-to-video class of diffusers."""
    rate_fps: int
    """Frames a second."""
    group: int
    """A latent frame holds so many: counts are a multiple of it and one."""
    most: int
    """Frames."""
    grid: int
    """Sides are multiples of this, px."""
    area: int
    """Pixels of a frame; larger pictures are scaled down to it."""
    own_size: bool = False
    """Whether it draws in no other size than its own."""
    needs: str = ""
    """A package that its pipeline cleans prompts with, and imports only if it is there."""


_SVD = Family("StableVideoDiffusionPipeline", 7, 1, 25, 64, 1024 * 576)
_LTX = Family("LTXImageToVideoPipeline", 24, 8, 257, 32, 704 * 512)
_WAN = Family("WanImageToVideoPipeline", 16, 4, 81, 16, 832 * 480, needs="ftfy")
_COG = Family("CogVideoXImageToVideoPipeline", 8, 4, 49, 16, 720 * 480, own_size=True)
FAMILIES = {family.pipeline: family for family in (_SVD, _LTX, _WAN, _COG)}
FAMILIES["LTXPipeline"] = _LTX  # the same parts; folders name the one that draws from text
"""Pipeline class of a folder to what draws from pictures with it."""


class LoadedVideoModel:
    """One loaded model; one run at a time."""

    def __init__(self, pipeline: Any) -> None:  # noqa: ANN401  (diffusers is untyped)
        self.pipeline = pipeline
        self.lock = threading.Lock()


def identity(name: str | None) -> EngineIdentity:
    """What a result depends on apart from the parameters; loads nothing.

    Raises:
        DependencyMissingError: there is no such model, or none that draws from pictures.
    """
    model, _ = _found(name)
    return EngineIdentity(
        engine_id="diffusers",
        version=f"{libraries()}+video{REVISION}.{settings().precision}",
        weights=(model.sha256,),
        device_class=device_class(),
    )


def animated(request: AnimateRequest, image: Pixels) -> Clip:
    """All frames of a short video that begins at a picture.

    Raises:
        MissingRequiredFieldError: there is no seed.
        DependencyMissingError: there is no such model.
        InvalidMediaError: its files cannot be loaded, or do not fit each other.
        OutOfMemoryError: too little memory even frugally.
        StopRequestedError: the run was asked to stop.
    """
    if request.seed is None:
        raise MissingRequiredFieldError(
            "the stage has no seed", "give seed a value, or let a flow draw it"
        )
    model, family = _found(request.model)
    opened = _opened(model, family)
    count, rate = frames_for(family, request.seconds)
    if rate < family.rate_fps:
        note(
            f"{model.name} draws {count} frames at most: {float(rate):.2f} a second, which it was "
            f"made to draw at {family.rate_fps}"
        )
    with opened.lock, quiet():
        frames = _drawn(opened.pipeline, family, request, image, model.name, count, rate)

    def each() -> Iterator[Pixels]:
        for frame in frames:
            yield to_uint8(frame)

    return Clip(each(), rate)


def frames_for(family: Family, seconds: float) -> tuple[int, Fraction]:
    """How many frames a model draws for a duration, and at which rate they are shown."""
    count = family.group * math.ceil(seconds * family.rate_fps / family.group) + 1
    if count <= family.most:
        return count, Fraction(family.rate_fps)
    return family.most, Fraction(family.most - 1) / Fraction(seconds).limit_denominator(1000)


def _found(name: str | None) -> tuple[VideoModel, Family]:
    model = find_video_model(name)
    family = FAMILIES.get(model.made_for)
    if family is None:
        raise DependencyMissingError(
            f"video model {model.name} was made for {model.made_for[:80]}, which draws no video "
            f"from a picture here; {', '.join(FAMILIES)} do",
            "name another model, or put one of these into the folder",
        )
    if family.needs and find_spec(family.needs) is None:
        raise DependencyMissingError(
            f"video model {model.name} needs the package {family.needs}, which is not installed",
            f"install it with: pip install {family.needs}",
        )
    return model, family


def _opened(model: VideoModel, family: Family) -> LoadedVideoModel:
    device, precision = resolve_device(), settings().precision
    key = ("video", model.sha256, device, precision)
    size = sum(file.stat().st_size for file in files_of(model.path))
    return loaded(key, lambda: _load(model, family, device, torch_dtype(device, precision)), size)


def _load(model: VideoModel, family: Family, device: str, dtype: "torch.dtype") -> LoadedVideoModel:
    with quiet():
        import diffusers

        try:
            with pinned(model.path, model.sha256) as path:
                pipeline = getattr(diffusers, family.pipeline).from_pretrained(
                    path, torch_dtype=dtype, local_files_only=True
                )
                pipeline = pipeline.to(device)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
            raise InvalidMediaError(
                f"video model {model.name} at {model.path} cannot be loaded: {str(error)[:300]}",
                "check that the folder is complete, or get the model again",
            ) from error
        pipeline.set_progress_bar_config(disable=True)
        return LoadedVideoModel(pipeline)


def _drawn(
    pipeline: Any,  # noqa: ANN401
    family: Family,
    request: AnimateRequest,
    image: Pixels,
    name: str,
    count: int,
    rate: Fraction,
) -> Floats:
    """(frames, H, W, 3), 0 to 1."""
    import torch

    width, height = _size(pipeline, family, image)
    if (height, width) != image.shape[:2]:
        note(
            f"{name} draws {width}x{height} px: the picture of {image.shape[1]}x{image.shape[0]} "
            "was scaled to it, and its longer side cut"
        )
    shown = ImageOps.fit(Image.fromarray(image), (width, height), Image.Resampling.LANCZOS)

    def on_step(pipe: object, index: int, _at: object, state: dict[str, Any]) -> dict[str, Any]:
        del pipe
        step(index + 1, request.steps)
        return state

    wanted: dict[str, object] = {
        "image": shown,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "height": height,
        "width": width,
        "num_frames": count,
        "num_inference_steps": request.steps,
        "fps": round(rate),
        "frame_rate": round(rate),
        "motion_bucket_id": round(FULL_BUCKET * request.motion),
        "decode_chunk_size": DECODED_TOGETHER,
        "output_type": "np",
        "callback_on_step_end": on_step,
    }
    if request.guidance_scale is not None:
        wanted["guidance_scale"] = wanted["max_guidance_scale"] = request.guidance_scale
    understood = set(inspect.signature(pipeline.__call__).parameters)
    if request.prompt and "prompt" not in understood:
        note(f"the prompt took no part: {name} reads none")
    call = {key: value for key, value in wanted.items() if key in understood}

    def whole() -> Floats:
        generator = torch.Generator("cpu").manual_seed(request.seed or 0)
        with fitting_together(f"video model {name}", "get the model again"):
            made = pipeline(**call, generator=generator).frames[0]
        return np.asarray(made, np.float32)

    rungs: list[tuple[str, Callable[[], Floats]]] = [("all frames together", whole)]
    if hasattr(pipeline.vae, "enable_tiling"):

        def tiled() -> Floats:
            with decoder_in_tiles(pipeline):
                return whole()

        rungs.append(("the decoder in tiles, which changes the frames a little", tiled))
    return with_less_memory(f"drawing {count} frames with {name}", rungs)


def _size(pipeline: Any, family: Family, image: Pixels) -> tuple[int, int]:  # noqa: ANN401
    """Width and height that the model draws, the nearest to the picture's."""
    height, width = image.shape[:2]
    if family.own_size:
        known = pipeline.transformer.config
        factor = pipeline.vae_scale_factor_spatial
        return known.sample_width * factor, known.sample_height * factor
    scale = min(1.0, math.sqrt(family.area / (height * width)))

    def on_grid(side: int) -> int:
        return max(family.grid, round(side * scale / family.grid) * family.grid)

    return on_grid(width), on_grid(height)

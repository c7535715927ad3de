"""Video models through diffusers, by the pipeline class that the model's folder names."""

import inspect
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image, ImageOps

from safelight.engines.diffusers.calling import fitting_together, libraries
from safelight.engines.diffusers.drawing import require_seed
from safelight.engines.diffusers.frugal import decoder_in_tiles
from safelight.engines.diffusers.model import quiet
from safelight.engines.diffusers.video_families import FROM_PICTURE, FROM_TEXT, Family, frames_for
from safelight.engines.films import FilmRequest
from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import AnimateRequest, Clip
from safelight.engines.machine.device import device_class, resolve_device, torch_dtype
from safelight.engines.machine.loaded import loaded
from safelight.engines.machine.memory import with_less_memory
from safelight.errors import (
    DependencyMissingError,
    InvalidFieldValueError,
    InvalidMediaError,
    PictureRefusedError,
)
from safelight.media.images import to_uint8
from safelight.pixels import Floats, Pixels
from safelight.progress import note, step
from safelight.settings import settings
from safelight.weights.hashing import files_of
from safelight.weights.json_files import read_object
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
LEAST_STRENGTH, MOST_STRENGTH = 0.4, 0.8
"""How far AnimateDiff draws over a picture that stands still, at motion 0 and 1."""


class LoadedVideoModel:
    """One loaded model; one run at a time."""

    def __init__(self, pipeline: Any) -> None:  # noqa: ANN401  (diffusers is untyped)
        self.pipeline = pipeline
        self.lock = threading.Lock()

    def view(self, pipeline: str) -> Any:  # noqa: ANN401
        """Its parts in the pipeline class that draws in one way."""
        import diffusers

        wanted = getattr(diffusers, pipeline)
        if isinstance(self.pipeline, wanted):
            return self.pipeline
        view = wanted(**self.pipeline.components)
        view.set_progress_bar_config(disable=True)
        return view


@dataclass(frozen=True)
class Wanted:
    """A short video as both requests ask for it."""

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance_scale: float | None
    motion: float
    width: int
    height: int
    first: Image.Image | None
    """The picture it begins with, of its size."""


def identity(request: AnimateRequest | FilmRequest) -> EngineIdentity:
    """What a result depends on apart from the parameters; loads nothing.

    Raises:
        DependencyMissingError: there is no such model, or none that draws so.
        InvalidFieldValueError: it does not draw in the size that is asked for.
    """
    if isinstance(request, AnimateRequest):
        model, _ = _found(request.model, FROM_PICTURE, "a picture")
    else:
        model, family = _found(request.model, FROM_TEXT, "text")
        _require_size(model, family, request.still.width, request.still.height)
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
    model, family = _found(request.model, FROM_PICTURE, "a picture")
    seed = require_seed(request.seed)
    opened = _opened(model)
    width, height = _size(opened.pipeline, family, image)
    if (height, width) != image.shape[:2]:
        note(
            f"{model.name} draws {width}x{height} px: the picture of "
            f"{image.shape[1]}x{image.shape[0]} was scaled to it, and its longer side cut"
        )
    wanted = Wanted(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=seed,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        motion=request.motion,
        width=width,
        height=height,
        first=ImageOps.fit(Image.fromarray(image), (width, height), Image.Resampling.LANCZOS),
    )
    return _clip(opened, model, family, wanted, request.seconds)


def filmed(request: FilmRequest) -> Clip:
    """All frames of a short video of a prompt.

    Raises:
        As `animated`.
        InvalidFieldValueError: the model does not draw in the size that is asked for.
    """
    model, family = _found(request.model, FROM_TEXT, "text")
    still = request.still
    _require_size(model, family, still.width, still.height)
    if still.width * still.height > family.area:
        note(
            f"{model.name} was made for {family.area} px a frame, {still.width}x{still.height} px "
            "are more: things may come out twice"
        )
    wanted = Wanted(
        prompt=still.prompt,
        negative_prompt=still.negative_prompt,
        seed=require_seed(still.seed),
        steps=still.steps,
        guidance_scale=still.guidance_scale,
        motion=request.motion,
        width=still.width,
        height=still.height,
        first=None,
    )
    return _clip(_opened(model), model, family, wanted, request.seconds)


def _clip(
    opened: LoadedVideoModel, model: VideoModel, family: Family, wanted: Wanted, seconds: float
) -> Clip:
    count, rate = frames_for(family, seconds)
    if rate < family.rate_fps:
        note(
            f"{model.name} draws {count} frames at most: {float(rate):.2f} a second, which it was "
            f"made to draw at {family.rate_fps}"
        )
    with opened.lock, quiet():
        view = opened.view(family.pipeline)
        frames = _drawn(view, family, wanted, model.name, count, rate)

    def each() -> Iterator[Pixels]:
        for frame in frames:
            yield to_uint8(frame)

    return Clip(each(), rate)


def _found(
    name: str | None, families: Mapping[str, Family], source: str
) -> tuple[VideoModel, Family]:
    model = find_video_model(name, families)
    family = families.get(model.made_for)
    if family is None:
        raise DependencyMissingError(
            f"video model {model.name} was made for {model.made_for[:80]}, which draws no video "
            f"from {source} here; {', '.join(families)} do",
            "name another model, or put one of these into the folder",
        )
    if family.needs and find_spec(family.needs) is None:
        raise DependencyMissingError(
            f"video model {model.name} needs the package {family.needs}, which is not installed",
            f"install it with: pip install {family.needs}",
        )
    return model, family


def _opened(model: VideoModel) -> LoadedVideoModel:
    device, precision = resolve_device(), settings().precision
    key = ("video", model.sha256, device, precision)
    size = sum(file.stat().st_size for file in files_of(model.path))
    return loaded(key, lambda: _load(model, device, torch_dtype(device, precision)), size)


def _load(model: VideoModel, device: str, dtype: "torch.dtype") -> LoadedVideoModel:
    with quiet():
        import diffusers

        try:
            with pinned(model.path, model.sha256) as path:
                pipeline = getattr(diffusers, model.made_for).from_pretrained(
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
    wanted: Wanted,
    name: str,
    count: int,
    rate: Fraction,
) -> Floats:
    """(frames, H, W, 3), 0 to 1."""
    import torch

    understood = set(inspect.signature(pipeline.__call__).parameters)
    _note_unread(family, wanted, name, "prompt" in understood)
    given = _given(family, wanted, count, rate)
    call = {key: value for key, value in given.items() if key in understood}

    def whole() -> Floats:
        generator = torch.Generator("cpu").manual_seed(wanted.seed)
        with fitting_together(f"video model {name}", "get the model again"):
            made = pipeline(**call, generator=generator).frames[0]
        frames = np.asarray(made, np.float32)
        if np.isnan(frames).any():
            raise PictureRefusedError(
                f"{name} gave frames whose values are no numbers: it overflows at this precision",
                "where SAFELIGHT_PRECISION is fp16, set it to bf16 or fp32",
            )
        return frames

    rungs: list[tuple[str, Callable[[], Floats]]] = [("all frames together", whole)]
    if hasattr(pipeline.vae, "enable_tiling"):

        def tiled() -> Floats:
            with decoder_in_tiles(pipeline):
                return whole()

        rungs.append(("the decoder in tiles, which changes the frames a little", tiled))
    return with_less_memory(f"drawing {count} frames with {name}", rungs)


def _given(family: Family, wanted: Wanted, count: int, rate: Fraction) -> dict[str, object]:
    """Everything that any of the pipelines understands."""

    def on_step(pipe: object, index: int, _at: object, state: dict[str, Any]) -> dict[str, Any]:
        del pipe
        step(index + 1, wanted.steps)
        return state

    given: dict[str, object] = {
        "prompt": wanted.prompt,
        "negative_prompt": wanted.negative_prompt,
        "height": wanted.height,
        "width": wanted.width,
        "num_frames": count,
        "num_inference_steps": wanted.steps,
        "fps": round(rate),
        "frame_rate": round(rate),
        "motion_bucket_id": round(FULL_BUCKET * wanted.motion),
        "decode_chunk_size": DECODED_TOGETHER,
        "output_type": "np",
        "callback_on_step_end": on_step,
    }
    if wanted.guidance_scale is not None:
        given["guidance_scale"] = given["max_guidance_scale"] = wanted.guidance_scale
    if family.stands_still:
        given["video"] = [wanted.first] * count
        given["strength"] = LEAST_STRENGTH + (MOST_STRENGTH - LEAST_STRENGTH) * wanted.motion
        given["enforce_inference_steps"] = True
    elif wanted.first is not None:
        given["image"] = wanted.first
        given["conditioning_frames"], given["controlnet_frame_indices"] = [wanted.first], [0]
    return given


def _note_unread(family: Family, wanted: Wanted, name: str, reads_prompt: bool) -> None:
    if wanted.prompt and not reads_prompt:
        note(f"the prompt took no part: {name} reads none")
    if wanted.negative_prompt and not family.negative:
        note(f"the negative prompt took no part: {name} reads none")
    if family.stands_still:
        note(f"{name} knows no first picture: it drew over the picture standing still")


def _require_size(model: VideoModel, family: Family, width: int, height: int) -> None:
    """Refuse sizes that a model does not draw, before it is loaded.

    Raises:
        InvalidFieldValueError: with those that it does.
    """
    if family.own_size:
        config = read_object(model.path / "transformer" / "config.json")
        encoded = read_object(model.path / "vae" / "config.json")
        halvings = len(cast("list[object]", encoded.get("block_out_channels") or [0])) - 1
        own = [
            int(str(config.get(f"sample_{side}", 0))) << halvings for side in ("width", "height")
        ]
        if [width, height] != own:
            raise InvalidFieldValueError(
                f"video model {model.name} draws {own[0]}x{own[1]} px alone, asked for is "
                f"{width}x{height}",
                f"set width to {own[0]} and height to {own[1]}",
            )
    elif width % family.grid or height % family.grid:
        raise InvalidFieldValueError(
            f"video model {model.name} draws sides that are multiples of {family.grid} px, asked "
            f"for is {width}x{height}",
            "choose width and height so",
        )


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

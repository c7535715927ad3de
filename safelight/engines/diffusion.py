"""Text-to-image models through diffusers: draw, draw over, fill in."""

import copy
import inspect
import os
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safelight.engines.device import device_class, resolve_device, torch_dtype
from safelight.engines.identity import EngineIdentity
from safelight.engines.loaded import loaded
from safelight.engines.memory import with_less_memory
from safelight.errors import (
    DependencyMissingError,
    InvalidFieldValueError,
    InvalidMediaError,
    OutOfMemoryError,
    PipelineError,
)
from safelight.installed import version
from safelight.media.images import to_uint8
from safelight.progress import note, part, step
from safelight.settings import settings
from safelight.weights.checkpoints import (
    WeightsCard,
    find_add_on,
    find_checkpoint,
    models_folder,
)
from safelight.weights.hashing import weights_sha256
from safelight.weights.layouts import write_controlnet_layout, write_layout

if TYPE_CHECKING:
    import torch

Pixels = NDArray[np.uint8]
REVISION = "1"
"""Raised when the arithmetic around the library changes."""
SCHEDULERS: dict[str, tuple[str, dict[str, object]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "dpmpp_2s": ("DPMSolverSinglestepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
"""Names that users of other programs know, to classes of diffusers and their settings."""


@dataclass(frozen=True)
class AddOn:
    """A LoRA, embedding, ControlNet or IP-Adapter from the models folder."""

    path: Path
    """Its file or folder."""
    sha256: str
    """Of its content."""
    weight: float = 1.0
    """How strongly it takes part."""


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
    """A name of `SCHEDULERS`; None is the model's own."""
    loras: tuple[AddOn, ...] = ()
    """Applied together."""
    embeddings: tuple[AddOn, ...] = ()
    """Textual inversions; their stem is the word for the prompt."""
    controlnet: AddOn | None = None
    """Steers the composition by `control_image`."""
    control_image: Pixels | None = field(default=None, compare=False)
    """(H, W, 3) uint8, same size as the result."""
    ip_adapter: AddOn | None = None
    """Takes a person or style from `reference_images`."""
    reference_images: tuple[Pixels, ...] = field(default=(), compare=False)
    """(H, W, 3) uint8 each."""


def identity(card: WeightsCard, add_ons: Sequence[AddOn] = ()) -> EngineIdentity:
    """What the result depends on apart from the parameters; loads nothing."""
    libraries = (
        f"{version('diffusers')}.torch{version('torch')}.transformers{version('transformers')}"
    )
    return EngineIdentity(
        engine_id="diffusers",
        version=f"{libraries}+{REVISION}.{settings().precision}",
        weights=(card.sha256, *(add_on.sha256 for add_on in add_ons)),
        device_class=device_class(),
    )


def check_scheduler(name: str | None) -> None:
    """Refuse a scheduler that is not known.

    Raises:
        InvalidFieldValueError: with the names that are.
    """
    if name is not None and name not in SCHEDULERS:
        raise InvalidFieldValueError(
            f"scheduler is {name!r}, expected one of {', '.join(SCHEDULERS)}",
            "correct scheduler, or leave it out for the model's own",
        )


def draw(drawing: Drawing, width: int, height: int) -> list[Pixels]:
    """Text to image.

    Returns:
        `num_images` pictures, (height, width, 3) uint8 sRGB.

    Raises:
        InvalidMediaError: the model's files cannot be loaded.
        OutOfMemoryError: too little memory even with everything moved off the device.
        StopRequestedError: the run was asked to stop.
    """
    note_unknown_subject(drawing.card, drawing.prompt)
    extra: dict[str, object] = {"width": width, "height": height}
    return _run(drawing, "AutoPipelineForText2Image", extra)


def redraw(drawing: Drawing, image: Pixels, strength: float) -> list[Pixels]:
    """Image to image.

    Args:
        drawing: model and prompt.
        image: (H, W, 3) uint8 sRGB, sides multiples of 8.
        strength: 0 gives the picture back, 1 keeps nothing of it.

    Raises:
        As `draw`.
    """
    if _steps_taken(drawing.steps, strength) < 1:
        return [image.copy() for _ in range(drawing.num_images)]
    extra: dict[str, object] = {"image": Image.fromarray(image), "strength": strength}
    return _run(drawing, "AutoPipelineForImage2Image", extra)


def fill(drawing: Drawing, image: Pixels, mask: NDArray[np.uint8], strength: float) -> list[Pixels]:
    """Paint the white part of a mask anew; the caller puts the rest back exactly.

    Args:
        drawing: model and prompt.
        image: (H, W, 3) uint8 sRGB, sides multiples of 8.
        mask: (H, W) uint8, 255 is repainted.
        strength: as for `redraw`.

    Raises:
        As `draw`.
    """
    if _steps_taken(drawing.steps, strength) < 1:
        return [image.copy() for _ in range(drawing.num_images)]
    height, width = image.shape[:2]
    extra: dict[str, object] = {
        "image": Image.fromarray(image),
        "mask_image": Image.fromarray(mask),
        "strength": strength,
        "width": width,
        "height": height,
    }
    return _run(drawing, "AutoPipelineForInpainting", extra)


def note_unknown_subject(card: WeightsCard, prompt: str) -> None:
    """For models that know few subjects: say so when the prompt names none of them."""
    if not card.subjects:
        return
    text = f" {' '.join(''.join(c if c.isalnum() else ' ' for c in prompt.lower()).split())} "
    if not any(f" {word.lower()} " in text for word in card.subjects):
        note(
            f"the model {card.name} does not know what {prompt!r} asks for; put a diffusers folder "
            f"or a .safetensors file into {models_folder()}"
        )


def preload(name: str | None) -> None:
    """Load a model now, so that the first picture does not wait for it.

    Args:
        name: see `find_checkpoint`.

    Raises:
        DependencyMissingError: there is no such model.
    """
    _model(find_checkpoint(name))


def _steps_taken(steps: int, strength: float) -> int:
    return min(int(steps * strength), steps)


class _Model:
    """One loaded model; one run at a time, since schedulers and adapters are its state."""

    def __init__(self, pipeline: Any) -> None:  # noqa: ANN401  (diffusers is untyped)
        self.lock = threading.Lock()
        self.pipeline = pipeline
        self.own_scheduler = pipeline.scheduler
        self.views: dict[str, Any] = {}

    def view(self, auto_class: str, scheduler: str | None, controlnet: Any) -> Any:  # noqa: ANN401
        """The pipeline for one way of drawing, with a scheduler of its own."""
        import diffusers

        if controlnet is not None:
            view = getattr(diffusers, auto_class).from_pipe(self.pipeline, controlnet=controlnet)
        elif auto_class in self.views:
            view = self.views[auto_class]
        else:
            view = getattr(diffusers, auto_class).from_pipe(self.pipeline)
            self.views[auto_class] = view
        view.set_progress_bar_config(disable=True)
        config = self.own_scheduler.config
        if scheduler is None:
            view.scheduler = type(self.own_scheduler).from_config(config)
        else:
            name, changes = SCHEDULERS[scheduler]
            view.scheduler = getattr(diffusers, name).from_config(config, **changes)
        return view


def _model(card: WeightsCard) -> _Model:
    device = resolve_device()
    precision = settings().precision
    key = ("diffusion", card.sha256, device, precision)
    return loaded(key, lambda: _load(card, device, precision), card.file_size_bytes)


def _load(card: WeightsCard, device: str, precision: str) -> _Model:
    with _quiet():
        from diffusers.pipelines.auto_pipeline import AutoPipelineForText2Image

        dtype = torch_dtype(device, precision)
        try:
            if card.file_path.is_dir():
                pipeline = AutoPipelineForText2Image.from_pretrained(
                    card.file_path, torch_dtype=dtype, local_files_only=True, **_no_checker(card)
                )
            else:
                pipeline = _from_single_file(card.file_path, dtype)
        except PipelineError:
            raise
        except Exception as error:
            raise InvalidMediaError(
                f"model {card.name} at {card.file_path} cannot be loaded: {str(error)[:300]}",
                "check that the folder is complete, or get the model again",
            ) from error
        return _Model(pipeline.to(device))


def _no_checker(card: WeightsCard) -> dict[str, object]:
    """A safety checker is left out where the model does not bring its files."""
    if (card.file_path / "safety_checker").is_dir():
        return {}
    return {"safety_checker": None, "requires_safety_checker": False}


def _from_single_file(path: Path, dtype: "torch.dtype") -> Any:  # noqa: ANN401
    import diffusers

    with TemporaryDirectory() as folder:
        name = write_layout(_shapes(path), path.name, Path(folder))
        return getattr(diffusers, name).from_single_file(
            str(path), config=folder, torch_dtype=dtype, local_files_only=True
        )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Of the tensors in a single file."""
    import torch
    from diffusers.loaders.single_file_utils import load_single_file_checkpoint

    held = cast("dict[str, object]", load_single_file_checkpoint(str(path), local_files_only=True))
    return {name: tuple(t.shape) for name, t in held.items() if isinstance(t, torch.Tensor)}


def _run(drawing: Drawing, auto_class: str, extra: dict[str, object]) -> list[Pixels]:
    check_scheduler(drawing.scheduler)
    model = _model(drawing.card)
    with model.lock, _quiet(), _add_ons(model, drawing) as controlnet:
        view = model.view(auto_class, drawing.scheduler, controlnet)
        call = _call(view, drawing, auto_class, extra)
        return _frugally(model, view, drawing, call)


def _call(
    view: Any,  # noqa: ANN401
    drawing: Drawing,
    auto_class: str,
    extra: dict[str, object],
) -> dict[str, object]:
    """Arguments that this kind of pipeline understands, the same for every picture."""
    understood = set(inspect.signature(view.__call__).parameters)
    call: dict[str, object] = {
        "num_inference_steps": drawing.steps,
        "guidance_scale": drawing.guidance_scale,
        "output_type": "np",
        **extra,
    }
    if drawing.control_image is not None and drawing.controlnet is not None:
        control = Image.fromarray(drawing.control_image)
        name = "image" if auto_class == "AutoPipelineForText2Image" else "control_image"
        call[name] = control
        call["controlnet_conditioning_scale"] = float(drawing.controlnet.weight)
    if drawing.ip_adapter is not None:
        references = [Image.fromarray(image) for image in drawing.reference_images]
        call["ip_adapter_image"] = [references] if len(references) > 1 else references[0]
    taken = _steps_taken(drawing.steps, float(str(extra.get("strength", 1.0))))

    def on_step(
        pipe: object, index: int, _at: object, state: dict[str, object]
    ) -> dict[str, object]:
        del pipe
        step(min(index + 1, taken), taken)
        return state

    call["callback_on_step_end"] = on_step
    return {name: value for name, value in call.items() if name in understood}


def _frugally(
    model: _Model,
    view: Any,  # noqa: ANN401
    drawing: Drawing,
    call: dict[str, object],
) -> list[Pixels]:
    understood = set(inspect.signature(view.__call__).parameters)

    def batches(size: int) -> list[Pixels]:
        made: list[Pixels] = []
        firsts = range(0, drawing.num_images, size)
        for index, first in enumerate(firsts):
            count = min(size, drawing.num_images - first)
            prompts: dict[str, object] = {"prompt": [drawing.prompt] * count}
            if "negative_prompt" in understood:
                prompts["negative_prompt"] = [drawing.negative_prompt] * count
            seeds = [drawing.seed + first + i for i in range(count)]
            with part(index, len(firsts)):
                result = view(**prompts, generator=_generators(seeds), **call)
            made.extend(to_uint8(np.asarray(image, np.float32)) for image in result.images)
        return made

    def sliced() -> list[Pixels]:
        with _attention_in_slices(view):
            return batches(1)

    def tiled() -> list[Pixels]:
        with attention(view), _decoder_in_tiles(view):
            return batches(1)

    def offloaded() -> list[Pixels]:
        with attention(view), _decoder_in_tiles(view), _off_the_device(model, view):
            return batches(1)

    rungs: list[tuple[str, Callable[[], list[Pixels]]]] = [
        ("the whole batch", lambda: batches(drawing.num_images))
    ]
    if drawing.num_images > 1:
        rungs.append(("one picture at a time", lambda: batches(1)))
    attention = nullcontext if drawing.ip_adapter is not None else _attention_in_slices
    if drawing.ip_adapter is None:  # its attention cannot be sliced
        rungs.append(("attention in slices", sliced))
    rungs.append(("the decoder in tiles, which changes the picture a little", tiled))
    if resolve_device().startswith("cuda"):
        rungs.append(("the model moved to the CPU between steps", offloaded))
    return with_less_memory(f"drawing with {drawing.card.name}", rungs)


@contextmanager
def _attention_in_slices(view: Any) -> Generator[None]:  # noqa: ANN401
    """Head by head; the models are shared, so they are put back as they were."""
    with ExitStack() as put_back:
        for module in view.components.values():
            if hasattr(module, "set_attention_slice"):
                put_back.callback(module.set_attn_processor, dict(module.attn_processors))
        view.enable_attention_slicing()
        yield


@contextmanager
def _decoder_in_tiles(view: Any) -> Generator[None]:  # noqa: ANN401
    view.vae.enable_tiling()
    try:
        yield
    finally:
        view.vae.disable_tiling()


@contextmanager
def _off_the_device(model: _Model, view: Any) -> Generator[None]:  # noqa: ANN401
    """Only the part of the model at work is on the device."""
    device = model.pipeline.device
    try:
        view.enable_model_cpu_offload()
        yield
    finally:
        view.remove_all_hooks()
        view.to(device)
        model.views.clear()  # this one remembers that it was moved


def _generators(seeds: list[int]) -> "list[torch.Generator]":
    """One generator a picture, on the CPU: a batch equals the single pictures, on any device."""
    import torch

    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


@contextmanager
def _add_ons(model: _Model, drawing: Drawing) -> Generator[Any]:
    """Put LoRAs, embeddings and adapters on the model, and take them off again.

    Raises:
        InvalidMediaError: one of them does not fit the model, or is none.
        DependencyMissingError: the folder of an IP-Adapter is not complete.
    """
    with ExitStack() as taken_off:
        if drawing.loras:
            _put_loras(model, drawing, taken_off)
        if drawing.embeddings:
            _put_embeddings(model, drawing, taken_off)
        if drawing.ip_adapter is not None:
            _put_ip_adapter(model, drawing, drawing.ip_adapter, taken_off)
        yield _controlnet(model, drawing)


@contextmanager
def _fitting(drawing: Drawing, kind: str, added: AddOn) -> Generator[None]:
    """Name the add-on that the libraries cannot put on this model."""
    import torch

    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"{kind} {added.path.name} does not fit into the device's memory",
            "leave it out, or choose a smaller model",
        ) from error
    except PipelineError:
        raise
    except Exception as error:
        raise InvalidMediaError(
            f"{kind} {added.path.name} cannot be put on model {drawing.card.name}: "
            f"{str(error)[:300]}",
            f"choose a {kind} made for this model, or another model",
        ) from error


def _require(drawing: Drawing, pipeline: Any, kind: str, method: str) -> None:  # noqa: ANN401
    if not hasattr(pipeline, method):
        raise InvalidFieldValueError(
            f"model {drawing.card.name} is a {type(pipeline).__name__}, which takes no {kind}",
            f"leave the {kind} out, or choose another model",
        )


def _put_loras(model: _Model, drawing: Drawing, taken_off: ExitStack) -> None:
    pipeline = model.pipeline
    _require(drawing, pipeline, "LoRA", "load_lora_weights")
    taken_off.callback(pipeline.unload_lora_weights)
    names = [f"lora_{position}" for position in range(len(drawing.loras))]
    for name, lora in zip(names, drawing.loras, strict=True):
        with _fitting(drawing, "LoRA", lora):
            pipeline.load_lora_weights(
                lora.path.parent, weight_name=lora.path.name, adapter_name=name
            )
            pipeline.set_adapters([name])  # fails where no layer of the model was found in it
    pipeline.set_adapters(names, [lora.weight for lora in drawing.loras])


def _put_embeddings(model: _Model, drawing: Drawing, taken_off: ExitStack) -> None:
    """Add words to copies of the tokenizers and of the tables of words."""
    pipeline = model.pipeline
    _require(drawing, pipeline, "embedding", "load_textual_inversion")
    suffixes = [s for s in ("", "_2") if getattr(pipeline, f"text_encoder{s}", None) is not None]
    own = {f"tokenizer{suffix}": getattr(pipeline, f"tokenizer{suffix}") for suffix in suffixes}
    taken_off.callback(model.views.clear)
    taken_off.callback(pipeline.register_modules, **own)
    pipeline.register_modules(**{name: copy.deepcopy(own[name]) for name in own})
    model.views.clear()  # those have the tokenizers without the words
    for position, suffix in enumerate(suffixes):
        tokenizer = getattr(pipeline, f"tokenizer{suffix}")
        encoder = getattr(pipeline, f"text_encoder{suffix}")
        table = encoder.get_input_embeddings()
        taken_off.callback(setattr, encoder.config, "vocab_size", encoder.config.vocab_size)
        taken_off.callback(encoder.set_input_embeddings, table)
        encoder.set_input_embeddings(copy.deepcopy(table))
        for embedding in drawing.embeddings:
            with _fitting(drawing, "embedding", embedding):
                word = embedding.path.stem
                vectors = _vectors(embedding.path, position, len(suffixes), table.embedding_dim)
                if len(tokenizer.tokenize(word)) == 1:
                    raise InvalidMediaError(
                        f"the model knows the word {word!r} of embedding {embedding.path.name}",
                        f"rename {embedding.path.name} to a word of your own",
                    )
                pipeline.load_textual_inversion(
                    {word: vectors}, token=word, tokenizer=tokenizer, text_encoder=encoder
                )


def _vectors(path: Path, position: int, encoders: int, width: int) -> "torch.Tensor":
    """What an embedding says to one of the model's text encoders: (vectors, width).

    Raises:
        ValueError: it was made for other encoders.
    """
    from safetensors.torch import load_file

    tensors = load_file(path)
    name = "emb_params" if "emb_params" in tensors else next(iter(tensors), "")
    if encoders > 1:
        name = ("clip_l", "clip_g")[position]
    if name not in tensors or (encoders == 1 and len(tensors) > 1 and name != "emb_params"):
        expected = "clip_l and clip_g" if encoders > 1 else "one"
        raise ValueError(f"it holds {', '.join(tensors) or 'nothing'}, expected {expected}")
    vectors = tensors[name]
    if vectors.shape[-1] != width:
        raise ValueError(f"its vectors are {vectors.shape[-1]} wide, the model's are {width}")
    return vectors


def _controlnet(model: _Model, drawing: Drawing) -> Any:  # noqa: ANN401
    added = drawing.controlnet
    if added is None:
        return None
    from diffusers.models.controlnets.controlnet import ControlNetModel

    pipeline = model.pipeline

    def load() -> Any:  # noqa: ANN401
        if added.path.is_dir():
            opened = ControlNetModel.from_pretrained(added.path, local_files_only=True)
        else:
            with TemporaryDirectory() as folder:
                write_controlnet_layout(_shapes(added.path), added.path.name, Path(folder))
                opened = ControlNetModel.from_single_file(
                    str(added.path), config=folder, local_files_only=True
                )
        return opened.to(pipeline.device, pipeline.dtype)

    key = ("controlnet", added.sha256, str(pipeline.device), str(pipeline.dtype))
    with _fitting(drawing, "ControlNet", added):
        net = loaded(key, load, 2**30)
        has, wants = net.config.cross_attention_dim, pipeline.unet.config.cross_attention_dim
        if has != wants:
            raise ValueError(f"it reads prompts {has} wide, the model's are {wants}")
    return net


def _put_ip_adapter(model: _Model, drawing: Drawing, added: AddOn, taken_off: ExitStack) -> None:
    """An adapter is a folder with its weights and, in `image_encoder`, what it sees with."""
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    pipeline = model.pipeline
    _require(drawing, pipeline, "IP-Adapter", "load_ip_adapter")
    files = sorted(added.path.glob("*.safetensors"))
    encoder = added.path / "image_encoder"
    if len(files) != 1 or not encoder.is_dir():
        raise DependencyMissingError(
            f"IP-Adapter {added.path.name} has {len(files)} .safetensors files and "
            f"{'an' if encoder.is_dir() else 'no'} image_encoder folder, expected one and one",
            "put exactly these into its folder",
        )

    def load() -> Any:  # noqa: ANN401
        opened = CLIPVisionModelWithProjection.from_pretrained(encoder, local_files_only=True)
        return opened.to(pipeline.device, pipeline.dtype)

    key = ("image_encoder", added.sha256, str(pipeline.device), str(pipeline.dtype))
    own = {name: getattr(pipeline, name, None) for name in ("image_encoder", "feature_extractor")}
    taken_off.callback(model.views.clear)
    taken_off.callback(pipeline.register_modules, **own)
    taken_off.callback(pipeline.unload_ip_adapter)
    model.views.clear()  # those lack the image encoder
    with _fitting(drawing, "IP-Adapter", added):
        seen = loaded(key, load, sum(file.stat().st_size for file in encoder.iterdir()))
        side = int(str(seen.config.image_size))
        size = {"height": side, "width": side}
        pipeline.register_modules(
            image_encoder=seen,
            feature_extractor=CLIPImageProcessor(size={"shortest_edge": side}, crop_size=size),
        )
        pipeline.load_ip_adapter(
            str(added.path),
            subfolder="",
            weight_name=files[0].name,
            image_encoder_folder=None,
            local_files_only=True,
        )
        pipeline.set_ip_adapter_scale(added.weight)


@contextmanager
def _quiet() -> Generator[None]:
    """The libraries warn about what is deprecated inside themselves; no news for our users."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no run waits for a hub it must not need
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def add_on(kind: str, name: str, weight: float) -> AddOn:
    """A LoRA, embedding, ControlNet or IP-Adapter of the models folder.

    Args:
        kind: folder below the models folder: loras, embeddings, controlnet or ip_adapter.
        name: stem of a .safetensors file there, or name of a folder.
        weight: how strongly it takes part.

    Raises:
        ForbiddenPathError: the name is a path, or a link leads out of the folder.
        DependencyMissingError: there is none of that name.
        UnsafePickleError: one of its files could run code when it is loaded.
    """
    path = find_add_on(kind, name)
    return AddOn(path, weights_sha256(path), weight)

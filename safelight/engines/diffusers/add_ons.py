"""LoRAs, embeddings, ControlNets and IP-Adapters on a model, and off it again."""

import copy
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from safelight.engines.diffusers.drawing import AddOn, Drawing
from safelight.engines.diffusers.lora_files import LayerNames, read_lora
from safelight.engines.diffusers.merging import Merging
from safelight.engines.diffusers.model import DiffusionModel, shapes_in
from safelight.engines.machine.loaded import loaded
from safelight.engines.machine.memory import is_out_of_memory
from safelight.errors import (
    DependencyMissingError,
    InvalidFieldValueError,
    InvalidMediaError,
    OutOfMemoryError,
    PipelineError,
)
from safelight.progress import note
from safelight.weights.layouts import write_controlnet_layout
from safelight.weights.pinned import pinned

if TYPE_CHECKING:
    import torch


@contextmanager
def put_on(model: DiffusionModel, drawing: Drawing) -> Generator[Any]:
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
def _fitting(drawing: Drawing, kind: str, *added: AddOn) -> Generator[None]:
    """Name the add-on, or those of which one it is, that cannot be put on this model."""
    named = ", ".join(one.path.name for one in added)
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"{kind} {named} does not fit into the device's memory",
                "leave it out, or choose a smaller model",
            ) from error
        raise InvalidMediaError(
            f"{kind} {named} cannot be put on model {drawing.card.name}: {str(error)[:300]}",
            f"choose a {kind} made for this model, or another model",
        ) from error


def _require(drawing: Drawing, pipeline: Any, kind: str, method: str) -> None:  # noqa: ANN401
    if not hasattr(pipeline, method):
        raise InvalidFieldValueError(
            f"model {drawing.card.name} is a {type(pipeline).__name__}, which takes no {kind}",
            f"leave the {kind} out, or choose another model",
        )


def _put_loras(model: DiffusionModel, drawing: Drawing, taken_off: ExitStack) -> None:
    if getattr(model.pipeline, "unet", None) is None:
        _put_adapters(model, drawing, taken_off)
        return
    merging = Merging(LayerNames(model.pipeline))
    taken_off.callback(merging.undo)
    for lora in drawing.loras:
        with _fitting(drawing, "LoRA", lora):
            with pinned(lora.path, lora.sha256) as path:
                left = merging.add(read_lora(path), lora.weight).said()
            if left is not None:
                note(f"LoRA {lora.path.name}: took no part: {left}")
    with _fitting(drawing, "LoRA", *drawing.loras):
        merging.make()


def _put_adapters(model: DiffusionModel, drawing: Drawing, taken_off: ExitStack) -> None:
    """As diffusers does, whose readers know the names of transformers."""
    pipeline = model.pipeline
    _require(drawing, pipeline, "LoRA", "load_lora_weights")
    taken_off.callback(pipeline.unload_lora_weights)
    names = [f"lora_{position}" for position in range(len(drawing.loras))]
    for name, lora in zip(names, drawing.loras, strict=True):
        with _fitting(drawing, "LoRA", lora), pinned(lora.path, lora.sha256) as path:
            pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
            pipeline.set_adapters([name])  # fails where no layer of the model was found in it
    pipeline.set_adapters(names, [lora.weight for lora in drawing.loras])


def _put_embeddings(model: DiffusionModel, drawing: Drawing, taken_off: ExitStack) -> None:
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
            with (
                _fitting(drawing, "embedding", embedding),
                pinned(embedding.path, embedding.sha256) as path,
            ):
                word = embedding.path.stem
                vectors = _vectors(path, position, len(suffixes), table.embedding_dim)
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


def _controlnet(model: DiffusionModel, drawing: Drawing) -> Any:  # noqa: ANN401
    added = drawing.controlnet
    if added is None:
        return None
    from diffusers.models.controlnets.controlnet import ControlNetModel

    pipeline = model.pipeline

    def load() -> Any:  # noqa: ANN401
        with pinned(added.path, added.sha256) as path:
            if path.is_dir():
                opened = ControlNetModel.from_pretrained(path, local_files_only=True)
            else:
                with TemporaryDirectory() as folder:
                    write_controlnet_layout(shapes_in(path), path.name, Path(folder))
                    opened = ControlNetModel.from_single_file(
                        str(path), config=folder, local_files_only=True
                    )
            return opened.to(pipeline.device, pipeline.dtype)

    key = ("controlnet", added.sha256, str(pipeline.device), str(pipeline.dtype))
    with _fitting(drawing, "ControlNet", added):
        net = loaded(key, load, 2**30)
        has, wants = net.config.cross_attention_dim, pipeline.unet.config.cross_attention_dim
        if has != wants:
            raise ValueError(f"it reads prompts {has} wide, the model's are {wants}")
    return net


def _put_ip_adapter(
    model: DiffusionModel, drawing: Drawing, added: AddOn, taken_off: ExitStack
) -> None:
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

    def load(encoder: Path) -> Any:  # noqa: ANN401
        opened = CLIPVisionModelWithProjection.from_pretrained(encoder, local_files_only=True)
        return opened.to(pipeline.device, pipeline.dtype)

    key = ("image_encoder", added.sha256, str(pipeline.device), str(pipeline.dtype))
    own = {name: getattr(pipeline, name, None) for name in ("image_encoder", "feature_extractor")}
    taken_off.callback(model.views.clear)
    taken_off.callback(pipeline.register_modules, **own)
    taken_off.callback(pipeline.unload_ip_adapter)
    model.views.clear()  # those lack the image encoder
    with _fitting(drawing, "IP-Adapter", added), pinned(added.path, added.sha256) as path:
        seen = loaded(
            key,
            lambda: load(path / encoder.name),
            sum(file.stat().st_size for file in encoder.iterdir()),
        )
        side = int(str(seen.config.image_size))
        size = {"height": side, "width": side}
        pipeline.register_modules(
            image_encoder=seen,
            feature_extractor=CLIPImageProcessor(size={"shortest_edge": side}, crop_size=size),
        )
        pipeline.load_ip_adapter(
            str(path),
            subfolder="",
            weight_name=files[0].name,
            image_encoder_folder=None,
            local_files_only=True,
        )
        pipeline.set_ip_adapter_scale(added.weight)

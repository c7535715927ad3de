"""LoRAs, embeddings, ControlNets, IP-Adapters and VAEs on a model, and off it again."""

import copy
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safelight.engines.diffusers.accounts import Account
from safelight.engines.diffusers.adapters import put_adapter, require_known
from safelight.engines.diffusers.controlnets import OpenedNet, open_controlnet
from safelight.engines.diffusers.drawing import AddOn, Control, Drawing
from safelight.engines.diffusers.embeddings import read_embedding, vectors_for
from safelight.engines.diffusers.folders import said_of_assumed
from safelight.engines.diffusers.ip_adapters import (
    ENCODER,
    Seen,
    account_of_weights,
    open_encoder,
    weights_in,
)
from safelight.engines.diffusers.kernels import with_channels_last
from safelight.engines.diffusers.lora_files import LayerNames, read_lora
from safelight.engines.diffusers.merging import Merging
from safelight.engines.diffusers.model import DiffusionModel
from safelight.engines.diffusers.quantising import require_whole_weights
from safelight.engines.diffusers.vaes import form_of, open_vae
from safelight.engines.machine.loaded import loaded
from safelight.engines.machine.memory import is_out_of_memory
from safelight.errors import (
    InvalidFieldValueError,
    InvalidMediaError,
    OutOfMemoryError,
    PipelineError,
)
from safelight.progress import note
from safelight.weights.pinned import pinned


@contextmanager
def put_on(model: DiffusionModel, drawing: Drawing) -> Generator[Any]:
    """Put LoRAs, embeddings and adapters on the model, and take them off again.

    Raises:
        InvalidMediaError: one of them does not fit the model, or is none.
        DependencyMissingError: the folder of an IP-Adapter is not complete.
    """
    with ExitStack() as taken_off:
        if drawing.vae is not None:
            _put_vae(model, drawing, drawing.vae, taken_off)
        if drawing.loras:
            _put_loras(model, drawing, taken_off)
        if drawing.embeddings:
            _put_embeddings(model, drawing, taken_off)
        if drawing.ip_adapter is not None:
            _put_ip_adapter(model, drawing, drawing.ip_adapter, taken_off)
        nets = [_controlnet(model, drawing, control) for control in drawing.all_controls]
        yield nets[0] if len(nets) == 1 else nets or None


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


def _say(kind: str, added: AddOn, account: Account) -> None:
    """Note what of an add-on's files takes no part, and what was assumed."""
    left, assumed = account.said(), said_of_assumed(account)
    if left is not None:
        note(f"{kind} {added.path.name}: took no part: {left}")
    if assumed is not None:
        note(f"{kind} {added.path.name}: assumed, since its config does not say: {assumed}")


def _put_loras(model: DiffusionModel, drawing: Drawing, taken_off: ExitStack) -> None:
    if getattr(model.pipeline, "unet", None) is None:
        _put_adapters(model, drawing, taken_off)
        return
    require_whole_weights(drawing.card.name, "LoRA")
    merging = Merging(LayerNames(model.pipeline))
    taken_off.callback(merging.undo)
    for lora in drawing.loras:
        with _fitting(drawing, "LoRA", lora):
            with pinned(lora.path, lora.sha256) as path:
                _say("LoRA", lora, merging.add(read_lora(path), lora.weight, lora.text_weight))
    with _fitting(drawing, "LoRA", *drawing.loras):
        merging.make()


def _put_vae(model: DiffusionModel, drawing: Drawing, added: AddOn, taken_off: ExitStack) -> None:
    """In place of the model's own, which comes back."""
    pipeline = model.pipeline
    own = pipeline.vae

    def load() -> tuple[Any, Account]:
        with pinned(added.path, added.sha256) as path:
            made, account = open_vae(path, own)
            made.to(pipeline.device, pipeline.dtype)
            return with_channels_last(made, pipeline.device), account

    takes = form_of(own)  # a single file has no config
    key = ("vae", added.sha256, takes, str(pipeline.device), str(pipeline.dtype))
    with _fitting(drawing, "VAE", added):
        made, account = loaded(key, load, added.path.stat().st_size)
    _say("VAE", added, account)
    taken_off.callback(model.views.clear)
    taken_off.callback(pipeline.register_modules, vae=own)
    model.views.clear()  # those have the model's own
    pipeline.register_modules(vae=made)


def _put_adapters(model: DiffusionModel, drawing: Drawing, taken_off: ExitStack) -> None:
    """As diffusers does, whose readers know the names of transformers."""
    pipeline = model.pipeline
    _require(drawing, pipeline, "LoRA", "load_lora_weights")
    taken_off.callback(pipeline.unload_lora_weights)
    names = [f"lora_{position}" for position in range(len(drawing.loras))]
    for name, lora in zip(names, drawing.loras, strict=True):
        with _fitting(drawing, "LoRA", lora), pinned(lora.path, lora.sha256) as path:
            if path.is_dir():
                raise ValueError("it is a folder of peft, which only models with a UNet take")
            require_known(path)
            _say("LoRA", lora, put_adapter(pipeline, path, name))
    parts = [part for part in pipeline._lora_loadable_modules if getattr(pipeline, part, None)]
    pipeline.set_adapters(names, [_weights(lora, parts) for lora in drawing.loras])


def _weights(lora: AddOn, parts: Sequence[str]) -> float | dict[str, float]:
    """One for all parts of a pipeline, or of each."""
    if lora.text_weight is None:
        return lora.weight
    return {
        part: lora.text_weight if part.startswith("text_encoder") else lora.weight for part in parts
    }


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
    encoders = {suffix: getattr(pipeline, f"text_encoder{suffix}") for suffix in suffixes}
    for encoder in encoders.values():
        table = encoder.get_input_embeddings()
        taken_off.callback(setattr, encoder.config, "vocab_size", encoder.config.vocab_size)
        taken_off.callback(encoder.set_input_embeddings, table)
        encoder.set_input_embeddings(copy.deepcopy(table))
    widths = {end: int(e.get_input_embeddings().embedding_dim) for end, e in encoders.items()}
    for embedding in drawing.embeddings:
        word = embedding.path.stem
        with (
            _fitting(drawing, "embedding", embedding),
            pinned(embedding.path, embedding.sha256) as path,
        ):
            vectors, account = vectors_for(read_embedding(path), widths)
            _say("embedding", embedding, account)
            for suffix, encoder in encoders.items():
                tokenizer = getattr(pipeline, f"tokenizer{suffix}")
                if len(tokenizer.tokenize(word)) == 1:
                    raise InvalidMediaError(
                        f"the model knows the word {word!r} of embedding {embedding.path.name}",
                        f"rename {embedding.path.name} to a word of your own",
                    )
                pipeline.load_textual_inversion(
                    {word: vectors[suffix]}, token=word, tokenizer=tokenizer, text_encoder=encoder
                )


def _controlnet(model: DiffusionModel, drawing: Drawing, control: Control) -> Any:  # noqa: ANN401
    pipeline, added = model.pipeline, control.net

    def load() -> OpenedNet:
        with pinned(added.path, added.sha256) as path:
            opened = open_controlnet(path)
            opened.net.to(pipeline.device, pipeline.dtype)
            return opened

    key = ("controlnet", added.sha256, str(pipeline.device), str(pipeline.dtype))
    with _fitting(drawing, "ControlNet", added):
        opened = loaded(key, load, lambda made: made.bytes)
        net = opened.net
        has, wants = net.config.cross_attention_dim, pipeline.unet.config.cross_attention_dim
        if has != wants:
            raise ValueError(f"it reads prompts {has} wide, the model's are {wants}")
    _say("ControlNet", added, opened.account)
    return net


def _put_ip_adapter(
    model: DiffusionModel, drawing: Drawing, added: AddOn, taken_off: ExitStack
) -> None:
    """An adapter is a folder with its weights and, in `image_encoder`, what it sees with."""
    pipeline = model.pipeline
    _require(drawing, pipeline, "IP-Adapter", "load_ip_adapter")
    weights = weights_in(added.path)

    def load(folder: Path) -> Seen:
        seen = open_encoder(folder)
        seen.encoder.to(pipeline.device, pipeline.dtype)
        return seen

    key = (ENCODER, added.sha256, str(pipeline.device), str(pipeline.dtype))
    own = {name: getattr(pipeline, name, None) for name in (ENCODER, "feature_extractor")}
    taken_off.callback(model.views.clear)
    taken_off.callback(pipeline.register_modules, **own)
    taken_off.callback(pipeline.unload_ip_adapter)
    model.views.clear()  # those lack the image encoder
    with _fitting(drawing, "IP-Adapter", added), pinned(added.path, added.sha256) as path:
        account = account_of_weights(path / weights.name, pipeline.unet)
        seen = loaded(
            key,
            lambda: load(path / ENCODER),
            sum(file.stat().st_size for file in (added.path / ENCODER).iterdir()),
        )
        pipeline.register_modules(image_encoder=seen.encoder, feature_extractor=seen.processor)
        pipeline.load_ip_adapter(
            str(path),
            subfolder="",
            weight_name=weights.name,
            image_encoder_folder=None,
            local_files_only=True,
        )
        pipeline.set_ip_adapter_scale(added.weight)
    _say("IP-Adapter", added, account)
    _say(f"{ENCODER} of IP-Adapter", added, seen.account)

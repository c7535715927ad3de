"""Opens single files of Stable Diffusion 3 and Flux, with the parts that lie elsewhere."""

import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from safelight.engines.diffusers.accounts import Account
from safelight.engines.diffusers.filling import Tensors, empty, filled, require_whole
from safelight.engines.diffusers.flow_names import STARTS, is_turned, targets
from safelight.engines.diffusers.folders import account_of_part, open_part
from safelight.engines.diffusers.single_files import reason_for, vae_layer
from safelight.engines.diffusers.stored import Stored, is_blocks, is_scale, of_eight_bits, opened
from safelight.engines.diffusers.text_files import clip_from, t5_from, tokenizer_of_t5
from safelight.weights.checkpoints import WeightsCard
from safelight.weights.flow_layouts import flow_vae_config, scheduler_config, transformer_config
from safelight.weights.layouts import END, Config, write_clip_tokenizer
from safelight.weights.parts import CLIP_G, CLIP_L, ROLES, T5, VAE, WORDS, Part
from safelight.weights.parts import STARTS as STARTS_OF_PARTS
from safelight.weights.pinned import pinned

if TYPE_CHECKING:
    import torch

_CLASSES = {
    "flux": ("FluxPipeline", "FluxTransformer2DModel"),
    "sd3": ("StableDiffusion3Pipeline", "SD3Transformer2DModel"),
}
_PADS = {CLIP_L: END, CLIP_G: "!"}
"""With what CLIP's tokenizers fill up short prompts."""
INPUTS = ("img_in.weight", "x_embedder.proj.weight")
"""Layers of Flux and of Stable Diffusion 3 that read the picture."""
Opened = tuple[Any, Account]


def open_flow(path: Path, card: WeightsCard, family: str, dtype: "torch.dtype") -> Opened:
    """The pipeline of a single file and of its parts, with what became of all tensors.

    Args:
        path: the file, pinned.
        card: tells the parts that are not in it.
        family: flux or sd3.
        dtype: what is computed in.

    Raises:
        InvalidMediaError: a part lacks tensors, has others than its class, or is packed in a way
            that is not known.
        DependencyMissingError: it is GGUF and the package gguf is not installed.
        ChecksumMismatchError: a part is not what the card is of.
    """
    with opened(path) as stored, ExitStack() as held:
        making = _Making(family, dtype, {part.role: part for part in card.parts}, held)
        making.network(stored)
        for role in ROLES[family]:
            making.part(role, stored)
        making.account_for(stored)
        return _class(_CLASSES[family][0])(**making.made), making.account()


class _Making:
    """A pipeline while it is put together."""

    def __init__(
        self, family: str, dtype: "torch.dtype", elsewhere: dict[str, Part], held: ExitStack
    ) -> None:
        self.made: dict[str, Any] = {}
        self._family, self._dtype = family, dtype
        self._elsewhere, self._held = elsewhere, held
        self._used: set[str] = set()
        self._unused: dict[str, str] = {}
        self._assumed: dict[str, object] = {}

    def account(self) -> Account:
        return Account(frozenset(self._used), self._unused, self._assumed)

    def network(self, stored: Stored) -> None:
        """The transformer and the scheduler."""
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
            FlowMatchEulerDiscreteScheduler as Scheduler,
        )

        start = next(s for s in STARTS if any(_is_of_block(name, s) for name in stored.shapes))
        for name in INPUTS:
            if start + name in stored.shapes:
                stored.held(start + name)  # the shape of what is packed is another
        config = transformer_config(stored.shapes, start, self._family, stored.name)
        kind = _class(_CLASSES[self._family][1])
        net = empty(lambda: kind.from_config(config))
        width = int(net.inner_dim)
        tensors, account = filled(
            stored,
            start,
            net.state_dict(),
            targets,
            self._dtype,
            lambda target, rows: is_turned(target, rows, width),
        )
        require_whole(tensors, net.state_dict(), "transformer", stored.name)
        self.made["transformer"] = _from_tensors(kind, config, net, tensors, self._dtype)
        self._add("", account)
        there = self._pinned("scheduler")
        if there is None:
            told = scheduler_config(stored.shapes, start, self._family)
            self.made["scheduler"] = Scheduler.from_config(told)
        else:
            self.made["scheduler"] = Scheduler.from_pretrained(there, local_files_only=True)
            self._add("scheduler.", account_of_part(there, Scheduler, None, ()))

    def part(self, role: str, stored: Stored) -> None:
        """A text encoder, tokenizer or VAE: in the file, elsewhere or left out."""
        what, part = ROLES[self._family][role], self._elsewhere.get(role)
        words = role.replace("text_encoder", "tokenizer")
        if part is None and what == WORDS:
            return  # of an encoder that is left out
        if part is not None and part.path is None:
            self.made |= {role: None, words: None}
            return
        there = self._pinned(role)
        if there is None:
            start = next(
                each
                for each in STARTS_OF_PARTS[what]
                if any(name.startswith(each) for name in stored.shapes)
            )
            self.made[role], account = self._stored(stored, start, what)
            self._add("", account)
        elif what == WORDS:
            self.made[role] = tokenizer_of_t5(there)
        elif there.is_dir():
            self.made[role], account = open_part(there, role, self._kind(what), self._dtype)
            self._add(f"{role}.", account)
        else:
            with opened(there) as file:
                self.made[role], account = self._stored(file, _start_in(file, what), what)
                self._add(f"{role}.", account)
        if what in _PADS:
            self.made[words] = self._clip_words(words, _PADS[what])

    def account_for(self, stored: Stored) -> None:
        """Say why the other tensors of the file take no part."""
        for name in stored.shapes.keys() - self._used:
            if is_scale(name):
                self._used.add(name)
            else:
                self._unused[name] = of_eight_bits(name) or reason_for(name)

    def _stored(self, stored: Stored, start: str, what: str) -> Opened:
        if what == VAE:
            return self._vae(stored, start)
        if what == T5:
            return t5_from(stored, start, self._dtype)
        return clip_from(stored, start, what, self._dtype, projects=self._family == "sd3")

    def _vae(self, stored: Stored, start: str) -> Opened:
        kind = _class("AutoencoderKL")
        config = flow_vae_config(stored.shapes, start, self._family, stored.name)
        net = empty(lambda: kind.from_config(config))
        levels = len(net.config["block_out_channels"])
        tensors, account = filled(
            stored,
            start,
            net.state_dict(),
            lambda name: (vae_layer(name, levels),),
            self._dtype,
        )
        require_whole(tensors, net.state_dict(), "VAE", stored.name)
        return _from_tensors(kind, config, net, tensors, self._dtype), account

    def _kind(self, what: str) -> Any:  # noqa: ANN401  (the libraries are untyped)
        import transformers

        if what == VAE:
            return _class("AutoencoderKL")
        if what == T5:
            return transformers.T5EncoderModel
        projects = self._family == "sd3"
        name = "CLIPTextModelWithProjection" if projects else "CLIPTextModel"
        return getattr(transformers, name)

    def _clip_words(self, role: str, pad: str) -> Any:  # noqa: ANN401
        from transformers import CLIPTokenizer

        there = self._pinned(role)
        if there is not None:
            return CLIPTokenizer.from_pretrained(there, local_files_only=True)
        with TemporaryDirectory() as folder:
            write_clip_tokenizer(Path(folder), pad)
            return CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    def _pinned(self, role: str) -> Path | None:
        part = self._elsewhere.get(role)
        if part is None or part.path is None:
            return None
        return self._held.enter_context(pinned(part.path, part.sha256))

    def _add(self, before: str, said: Account) -> None:
        self._used |= {before + name for name in said.used}
        self._unused |= {before + name: why for name, why in said.unused.items()}
        self._assumed |= {before + name: value for name, value in said.assumed.items()}


def _class(name: str) -> Any:  # noqa: ANN401
    import diffusers

    return getattr(diffusers, name)


def _is_of_block(name: str, start: str) -> bool:
    blocks = ("double_blocks.", "joint_blocks.")
    return name.startswith(tuple(start + block for block in blocks))


def _start_in(stored: Stored, what: str) -> str:
    """How a part's names begin in a file of its own; some people cut it out of a whole model."""
    starts = STARTS_OF_PARTS[what]
    return next((s for s in starts if any(n.startswith(s) for n in stored.shapes)), "")


def _from_tensors(
    kind: Any,  # noqa: ANN401
    config: Config,
    net: Any,  # noqa: ANN401
    tensors: Tensors,
    dtype: "torch.dtype",
) -> Any:  # noqa: ANN401
    """A network of diffusers; layers whose weights are blocks of GGUF keep them."""
    extra: dict[str, object] = {}
    blocks = [name for name, tensor in tensors.items() if is_blocks(tensor)]
    if blocks:
        from diffusers.quantizers.quantization_config import GGUFQuantizationConfig

        for name in set(blocks) - _linear(net):
            tensors[name] = _plain(tensors[name]).to(dtype)
        extra["quantization_config"] = GGUFQuantizationConfig(compute_dtype=dtype)
    with TemporaryDirectory() as folder:
        told = json.dumps({"_class_name": kind.__name__, **config})
        (Path(folder) / "config.json").write_text(told)
        return kind.from_single_file(
            dict(tensors), config=folder, torch_dtype=dtype, local_files_only=True, **extra
        )


def _linear(net: Any) -> set[str]:  # noqa: ANN401
    """Weights of the layers that can compute with blocks."""
    import torch

    named = net.named_modules()
    return {f"{name}.weight" for name, one in named if isinstance(one, torch.nn.Linear)}


def _plain(tensor: "torch.Tensor") -> "torch.Tensor":
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    return dequantize_gguf_tensor(tensor)

"""What a model's text encoders make of prompts, computed once for each prompt."""

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safelight.engines.diffusers.weighting import encode, encoders_of, is_deep, length_of
from safelight.errors import InvalidFieldValueError

if TYPE_CHECKING:
    import torch

KEPT = 256
"""Prompts whose encodings stay on the device, 0.2 to 6 MB each."""
MOST_BYTES = 256 * 2**20
"""Memory that they take together, at most."""
_FOUR = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
)
_GIVEN = {
    "StableDiffusionXL": _FOUR,
    "StableDiffusion3": _FOUR,
    "StableDiffusion": ("prompt_embeds", "negative_prompt_embeds"),
    "Flux": ("prompt_embeds", "pooled_prompt_embeds"),
}
"""What the `encode_prompt` of diffusers' pipelines gives, in order, by the beginning of their
names, the longer before the shorter.

In these families a prompt is always as long, whatever others stand beside it, and the pipeline
takes what was encoded in place of the text.
"""
_MOST_SKIP = {"sd": 12, "sdxl": 2}
"""Of the families whose prompts CLIP alone reads."""
Texts = tuple[str, str]
"""A prompt and its negative prompt."""


@dataclass(frozen=True)
class OnEncoders:
    """What changes what text encoders make of words."""

    add_ons: tuple[object, ...] = ()
    """LoRAs and embeddings that are on the model."""
    clip_skip: int = 1
    """Which layer from the end of CLIP is read."""


def check_clip_skip(clip_skip: int, family: str | None) -> None:
    """Refuse a layer that models of a family are not read at.

    Raises:
        InvalidFieldValueError: with those that they are.
    """
    most = _MOST_SKIP.get(family or "sd", 1)
    if clip_skip > most:
        raise InvalidFieldValueError(
            f"clip_skip is {clip_skip}; prompts of models of the family {family} are read at layer "
            f"{'1' if most == 1 else f'1 to {most}'} from the end",
            "leave clip_skip out" if most == 1 else f"set clip_skip to {most} or less",
        )


class Encodings:
    """Of one loaded model, the latest `KEPT` of them."""

    def __init__(self) -> None:
        """Nothing is encoded yet."""
        self._kept: OrderedDict[tuple[object, ...], dict[str, torch.Tensor]] = OrderedDict()
        self._ahead: torch.cuda.Stream | None = None

    def of(
        self,
        view: Any,  # noqa: ANN401  (diffusers is untyped)
        texts: Sequence[Texts],
        guided: bool,
        state: OnEncoders,
    ) -> "dict[str, torch.Tensor]":
        """Arguments for the pipeline that stand for the prompts.

        Args:
            view: a pipeline of diffusers.
            texts: one for each picture.
            guided: the negative prompt takes part.
            state: what changes what its encoders make of them.

        Returns:
            Tensors whose first dimension is the number of pictures; nothing where it is not known
            what the pipeline's encoders give.
        """
        import torch

        names = _given(view)
        if not names:
            return {}
        if self._ahead is not None:
            torch.cuda.current_stream(_device(view)).wait_stream(self._ahead)
        found = self._found(view, names, texts, guided, state)
        return {name: torch.cat([found[text][name] for text in texts]) for name in found[texts[0]]}

    def ahead(
        self,
        view: Any,  # noqa: ANN401
        texts: Sequence[Texts],
        guided: bool,
        state: OnEncoders,
    ) -> None:
        """Encode what `of` is soon asked for, beside the work that waits on a CUDA device.

        Words go to the device with a call that returns when all before it is done. In a stream of
        its own that is at once, and the device has no pause between two batches.
        """
        import torch

        names = _given(view)
        if not names or not texts or _device(view).type != "cuda":
            return
        if self._ahead is None:
            self._ahead = torch.cuda.Stream(_device(view))
        drawing = torch.cuda.current_stream(_device(view))
        with torch.cuda.stream(self._ahead):
            found = self._found(view, names, texts, guided, state)
        for tensors in found.values():
            for tensor in tensors.values():
                tensor.record_stream(drawing)

    def _found(
        self,
        view: Any,  # noqa: ANN401
        names: tuple[str, ...],
        texts: Sequence[Texts],
        guided: bool,
        state: OnEncoders,
    ) -> "dict[Texts, dict[str, torch.Tensor]]":
        found: dict[Texts, dict[str, torch.Tensor]] = {}
        for text in dict.fromkeys(texts):
            key = (*text, guided, state)
            if key in self._kept:
                self._kept.move_to_end(key)
                found[text] = self._kept[key]
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        for text in list(missing):
            length = length_of(view, text if guided else text[:1])
            if not length and state.clip_skip > 1 and not is_deep(view) and encoders_of(view):
                length = 1  # the pipeline itself reads the last layer alone
            if length:
                found[text] = _in_chunks(view, names, text, guided, length, state.clip_skip)
                self._kept[*text, guided, state] = found[text]
                missing.remove(text)
        # on the CPU one by one: what a prompt becomes must not depend on those beside it
        together = 1 if _device(view).type == "cpu" else max(len(missing), 1)
        for first in range(0, len(missing), together):
            some = missing[first : first + together]
            for text, encoded in zip(some, _encoded(view, names, some, guided), strict=True):
                found[text] = self._kept[*text, guided, state] = encoded
        while len(self._kept) > KEPT or (self._bytes() > MOST_BYTES and len(self._kept) > 1):
            self._kept.popitem(last=False)
        return found

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()

    def _bytes(self) -> int:
        return sum(t.nbytes for tensors in self._kept.values() for t in tensors.values())


def _given(view: Any) -> tuple[str, ...]:  # noqa: ANN401
    name = type(view).__name__
    names = next((_GIVEN[start] for start in _GIVEN if name.startswith(start)), ())
    if not names or not hasattr(view, "encode_prompt"):
        return ()
    embeds = {n for n in inspect.signature(view.encode_prompt).parameters if n.endswith("_embeds")}
    taken = set(inspect.signature(view.__call__).parameters)
    return names if set(names) == embeds and embeds <= taken else ()


def _device(view: Any) -> "torch.device":  # noqa: ANN401
    """Where the encoders compute, also while they are kept on the CPU between steps."""
    return getattr(view, "_execution_device", view.device)


def _in_chunks(
    view: Any,  # noqa: ANN401
    names: tuple[str, ...],
    text: Texts,
    guided: bool,
    length: int,
    clip_skip: int,
) -> "dict[str, torch.Tensor]":
    """The tensors of a text that has weights or is long."""
    prompt, pooled = encode(view, text[0], length, clip_skip)
    found = {"prompt_embeds": prompt, "pooled_prompt_embeds": pooled}
    if guided:
        negative, negative_pooled = encode(view, text[1], length, clip_skip)
        found |= {
            "negative_prompt_embeds": negative,
            "negative_pooled_prompt_embeds": negative_pooled,
        }
    dtype = view.unet.dtype
    return {
        name: tensor.to(dtype).clone()
        for name, tensor in found.items()
        if name in names and tensor is not None
    }


def _encoded(
    view: Any,  # noqa: ANN401
    names: tuple[str, ...],
    texts: Sequence[Texts],
    guided: bool,
) -> "list[dict[str, torch.Tensor]]":
    """One set of tensors for each text, each of its own memory."""
    import torch

    asked: dict[str, object] = {
        "prompt": [prompt for prompt, _ in texts],
        "prompt_2": None,  # None: the same for all of the model's encoders
        "prompt_3": None,
        "device": _device(view),
        "num_images_per_prompt": 1,
        "do_classifier_free_guidance": guided,
        "negative_prompt": [negative for _, negative in texts],
    }
    taken = inspect.signature(view.encode_prompt).parameters
    with torch.no_grad():
        given = view.encode_prompt(**{name: asked[name] for name in asked if name in taken})
    tensors = {n: t for n, t in zip(names, given, strict=False) if isinstance(t, torch.Tensor)}
    return [
        {name: tensor[at : at + 1].clone() for name, tensor in tensors.items()}
        for at in range(len(texts))
    ]

"""Prompts of any length, with weights: `(word)`, `(word:1.3)`, `[word]` and BREAK.

The way of Stable Diffusion web UI, which most prompts are written for: words are cut into chunks
that the encoder reads one by one, each vector is multiplied by the weight of its word, and then
each chunk is brought back to the mean it had.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safelight.errors import InvalidFieldValueError

if TYPE_CHECKING:
    import torch

MORE, LESS = 1.1, 1 / 1.1
"""What a pair of round and of square brackets multiplies a weight by."""
COMMA_REACH = 20
"""Words, counted as tokens, behind the last comma of a full chunk that go into the next one."""
UNLIMITED = 100_000
"""Tokenizers that know no limit name a huge one."""
_PIECES = re.compile(
    r"\\[()\[\]\\]|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|[()\[\]]|\bBREAK\b|\\|[^\\()\[\]:B]+|.",
    re.DOTALL,
)
_FAMILIES = ("StableDiffusionXL", "StableDiffusion")
_OTHERS = ("StableDiffusion3",)


@dataclass
class Words:
    """Text of one weight; None is a BREAK."""

    text: str | None
    weight: float = 1.0


def weighted(prompt: str) -> list[Words]:
    """Take a prompt apart by its brackets; those without a partner count to the end of it."""
    found: list[Words] = []
    opened: list[tuple[str, int]] = []

    def close(kind: str, times: float) -> bool:
        at = next((i for i in reversed(range(len(opened))) if opened[i][0] == kind), None)
        if at is None:
            return False
        for words in found[opened.pop(at)[1] :]:
            words.weight *= times
        return True

    for piece in _PIECES.finditer(prompt):
        text, number = piece[0], piece[1]
        if text in ("(", "["):
            opened.append((text, len(found)))
        elif text == "BREAK":
            found.append(Words(None))
        elif not (
            (number is not None and close("(", float(number)))
            or (text == ")" and close("(", MORE))
            or (text == "]" and close("[", LESS))
        ):
            plain = text[1:] if len(text) == 2 and text[0] == "\\" else text
            found.append(Words(plain))
    for kind, first in opened:
        for words in found[first:]:
            words.weight *= MORE if kind == "(" else LESS
    return list(_joined(found))


def _joined(found: list[Words]) -> Iterator[Words]:
    before: Words | None = None
    for words in found:
        same = before is not None and before.text is not None and words.text is not None
        if before is not None and same and words.weight == before.weight:
            before.text = f"{before.text}{words.text}"
            continue
        if before is not None:
            yield before
        before = words
    if before is not None:
        yield before


@dataclass
class Chunk:
    """As many tokens as an encoder reads at once, without its own."""

    tokens: list[int]
    weights: list[float]


def chunks_of(prompt: str, tokenizer: Any, view: Any) -> list[Chunk]:  # noqa: ANN401  (untyped)
    """Tokens of a prompt with their weights, in chunks; at least one."""
    size = int(tokenizer.model_max_length) - 2
    comma: int = next(iter(tokenizer(",", add_special_tokens=False)["input_ids"]), -1)
    chunks = [Chunk([], [])]
    for words in weighted(prompt):
        if words.text is None:
            chunks.append(Chunk([], []))
            continue
        convert = getattr(view, "maybe_convert_prompt", None)
        text = words.text if convert is None else convert(words.text, tokenizer)
        for token in tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]:
            last = chunks[-1]
            if len(last.tokens) == size:
                chunks.append(_behind_comma(last, comma) if token != comma else Chunk([], []))
                last = chunks[-1]
            last.tokens.append(token)
            last.weights.append(words.weight)
    return chunks


def _behind_comma(full: Chunk, comma: int) -> Chunk:
    """The next chunk; what stands behind a late comma goes there, so that no thought is cut."""
    near = [at for at in range(len(full.tokens)) if full.tokens[at] == comma]
    first = near[-1] + 1 if near else 0
    if not near or len(full.tokens) - first > COMMA_REACH:
        return Chunk([], [])
    moved = Chunk(full.tokens[first:], full.weights[first:])
    del full.tokens[first:], full.weights[first:]
    return moved


def encoders_of(view: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401
    """Tokenizer and encoder, once or twice; none where the family reads prompts in another way."""
    name = type(view).__name__
    if not name.startswith(_FAMILIES) or name.startswith(_OTHERS):
        return []
    found: list[tuple[Any, Any]] = []
    for end in ("", "_2"):
        tokenizer = getattr(view, f"tokenizer{end}", None)
        encoder = getattr(view, f"text_encoder{end}", None)
        if tokenizer is None or encoder is None:
            continue
        masks = getattr(encoder.config, "use_attention_mask", False)
        if masks or int(tokenizer.model_max_length) > UNLIMITED:
            return []
        found.append((tokenizer, encoder))
    return found


def length_of(view: Any, prompts: tuple[str, ...]) -> int:  # noqa: ANN401
    """Chunks that prompts take, the longest of them; 0 where the pipeline reads them by itself."""
    encoders = encoders_of(view)
    if not encoders or all(_is_plain(prompt, view, encoders) for prompt in prompts):
        return 0
    return max(len(chunks_of(p, tokenizer, view)) for p in prompts for tokenizer, _ in encoders)


def _is_plain(prompt: str, view: Any, encoders: list[tuple[Any, Any]]) -> bool:  # noqa: ANN401
    parts = weighted(prompt)
    if len(parts) > 1 or any(part.weight != 1 or part.text != prompt for part in parts):
        return False
    return all(len(chunks_of(prompt, tokenizer, view)) == 1 for tokenizer, _ in encoders)


def has_weights(prompt: str) -> bool:
    """Whether a prompt has brackets that weigh words, or a BREAK."""
    parts = weighted(prompt)
    return any(part.text is None or part.weight != 1 for part in parts)


def is_deep(view: Any) -> bool:  # noqa: ANN401
    """Whether the family is read at the penultimate layer, whatever `clip_skip` says up to 2."""
    return type(view).__name__.startswith("StableDiffusionXL")


def require_layers(encoder: Any, clip_skip: int) -> None:  # noqa: ANN401
    """Refuse a layer that an encoder does not have.

    Raises:
        InvalidFieldValueError: with how many there are.
    """
    layers = int(encoder.config.num_hidden_layers)
    if clip_skip > layers:
        raise InvalidFieldValueError(
            f"clip_skip is {clip_skip}, and the text encoder of this model has {layers} layers",
            f"set clip_skip to {layers} or less",
        )


def encode(
    view: Any,  # noqa: ANN401
    prompt: str,
    length: int,
    clip_skip: int = 1,
) -> "tuple[torch.Tensor, torch.Tensor | None]":
    """What the encoders make of a prompt.

    Args:
        view: a pipeline with `encoders_of`.
        prompt: of any length.
        length: chunks; those that are missing are empty.
        clip_skip: which layer from the end is read, where the family leaves that open.

    Returns:
        Shape (1, chunks * tokens, width), the encoders side by side, and what the last encoder
        makes of the first chunk as a whole, (1, width), where the family takes it.

    Source:
        AUTOMATIC1111/stable-diffusion-webui, "Original" emphasis.
    """
    import torch

    deep = is_deep(view)
    device = getattr(view, "_execution_device", view.device)
    sides: list[torch.Tensor] = []
    pooled: torch.Tensor | None = None
    for tokenizer, encoder in encoders_of(view):
        if clip_skip > 1 and not deep:
            require_layers(encoder, clip_skip)
        chunks = chunks_of(prompt, tokenizer, view)
        chunks += [Chunk([], []) for _ in range(length - len(chunks))]
        read: list[torch.Tensor] = []
        for number, chunk in enumerate(chunks):
            tokens, weights = _filled(chunk, tokenizer)
            ids = torch.tensor([tokens], device=device)
            with torch.no_grad():
                told = encoder(ids, output_hidden_states=deep or clip_skip > 1)
                seen = told.hidden_states[-2] if deep else told[0]
                if clip_skip > 1 and not deep:
                    whole = getattr(encoder, "text_model", encoder)
                    seen = whole.final_layer_norm(told.hidden_states[-clip_skip])
            if number == 0 and deep:
                pooled = told[0]
            read.append(_weighed(seen, weights))
        sides.append(torch.cat(read, dim=1))
    return torch.cat(sides, dim=-1), pooled


def _filled(chunk: Chunk, tokenizer: Any) -> tuple[list[int], list[float]]:  # noqa: ANN401
    size = int(tokenizer.model_max_length)
    tokens = [tokenizer.bos_token_id, *chunk.tokens, tokenizer.eos_token_id]
    rest = size - len(tokens)
    return tokens + [tokenizer.pad_token_id] * rest, [1.0, *chunk.weights, *[1.0] * (rest + 1)]


def _weighed(seen: "torch.Tensor", weights: list[float]) -> "torch.Tensor":
    import torch

    if all(weight == 1 for weight in weights):
        return seen
    exact = seen.float()
    times = torch.tensor(weights, dtype=exact.dtype, device=exact.device)[None, :, None]
    after = exact * times
    mean = after.mean()
    return (after * (exact.mean() / mean) if mean != 0 else after).to(seen.dtype)

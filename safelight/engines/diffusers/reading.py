"""How much of a prompt a model's text encoders read."""

from collections.abc import Iterable
from typing import Any

from safelight.engines.diffusers.weighting import UNLIMITED, encoders_of, has_weights
from safelight.progress import note

SHOWN = 200
"""Characters of what is not read that a note shows."""


def note_unread(pipeline: Any, prompts: Iterable[str]) -> None:  # noqa: ANN401  (diffusers is untyped)
    """Say what of prompts no text encoder of a pipeline reads; the rest takes no part.

    Families whose prompts are read in chunks leave nothing out.

    Args:
        pipeline: a pipeline of diffusers.
        prompts: as they are encoded.
    """
    if encoders_of(pipeline):
        return
    tokenizers = [getattr(pipeline, f"tokenizer{end}", None) for end in ("", "_2", "_3")]
    for prompt in dict.fromkeys(prompts):
        if has_weights(prompt):
            note("this family of models knows no weights in prompts: brackets are read as text")
        unread = [_unread(each, prompt) for each in tokenizers if each is not None]
        if not unread or not all(unread):
            continue
        limit, rest = min((each for each in unread if each), key=lambda each: len(each[1]))
        shown = rest if len(rest) <= SHOWN else f"{rest[:SHOWN]}..."
        note(f"the prompt is longer than the model reads ({limit} tokens): left out is {shown!r}")


def _unread(tokenizer: Any, prompt: str) -> tuple[int, str] | None:  # noqa: ANN401
    limit = int(tokenizer.model_max_length)
    if limit > UNLIMITED:
        return None
    own = tokenizer.num_special_tokens_to_add()
    tokens: list[int] = tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
    beyond = tokens[limit - own :]
    return (limit, str(tokenizer.decode(beyond)).strip()) if beyond else None

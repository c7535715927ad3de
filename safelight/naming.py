"""What a run is called by: a name made of what it makes, a tag for how it failed, its batch."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import PurePath
from typing import cast

import coolname.data
from coolname.loader import load_config

from safelight.errors import PipelineError, one_line
from safelight.redacting import redacted

LONGEST = 40
"""Characters of a prompt or file name in the name of a run."""
LARGEST = 120
"""Characters of the whole name."""
BETWEEN = " · "
DRAWN_WORDS = 2
ERROR_TAG = "error:"
BATCH_LABEL = "safelight.batch-run"
"""Label of a run of a batch: the id of the batch's own run that made it, or took it up last."""
MEDIA = ("image", "video")
"""Parameters that are what a run works on, when it has no prompt."""
QUALITY = ("quality", "quality_preset", "preset")
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|"
    "tau|upsilon|phi|chi|psi|omega"
)
_BY_UI = re.compile(rf"({_GREEK})[0-9]*-[a-z]+(-[a-z]+)*")
"""The form of the older UI fills in a letter, a star or a place, and a word."""
_CODE = re.compile(r"\[([A-Z_]+)\] ")


def run_name(flow: str, parameters: Mapping[str, object], seed: int | None = None) -> str:
    """Prompt or file, seed and quality: "red heart · 7 · standard".

    Args:
        flow: name of the flow, which stands for a prompt that is not there.
        parameters: as they were given, unchecked.
        seed: the one that was drawn where none was given.
    """
    given = seed if seed is not None else parameters.get("seed")
    quality = next((parameters[name] for name in QUALITY if parameters.get(name)), None)
    parts = [_subject(flow, parameters)]
    parts += [str(value) for value in (given, quality) if isinstance(value, int | str)]
    return _short(BETWEEN.join(parts), LARGEST)


def _subject(flow: str, parameters: Mapping[str, object]) -> str:
    prompt = parameters.get("prompt")
    if isinstance(prompt, str) and prompt.strip():
        return _short(prompt, LONGEST)
    inputs = parameters.get("call_input")
    places = [parameters, inputs] if isinstance(inputs, Mapping) else [parameters]
    for place in places:
        for name in (*MEDIA, "file"):
            value = place.get(name)
            if isinstance(value, str) and value.strip():
                return f"{flow} {_short(PurePath(value).name, LONGEST)}"
    if isinstance(parameters.get("flow"), str) and isinstance(parameters.get("key"), str):
        return f"{flow} {_short(str(parameters['key']), LONGEST)}"
    target = parameters.get("flow")
    return f"{flow} of {_short(target, LONGEST)}" if isinstance(target, str) else flow


def _short(text: str, longest: int) -> str:
    text = one_line(redacted(" ".join(text.split())))
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def is_drawn(name: str) -> bool:
    """Whether Prefect or its UI drew the name from lists of words, so that nobody misses it."""
    if _BY_UI.fullmatch(name):
        return True
    words = name.split("-")
    return len(words) == DRAWN_WORDS and _words().issuperset(words)


@cache
def _words() -> frozenset[str]:
    lists = load_config(coolname.data.__path__[0])
    words = (cast("dict[str, list[str]]", entry).get("words", []) for entry in lists.values())
    return frozenset(word for some in words for word in some)


def error_tag(message: str) -> str | None:
    """The tag of a run whose state has this message: `error:CODE`; None without a code."""
    said = _CODE.match(message)
    return ERROR_TAG + said[1] if said else None


def tagged(tags: Iterable[str], error: PipelineError | str | None) -> list[str]:
    """Tags of a run with the one of its error; those of earlier tries are left out.

    Args:
        tags: as the run has them.
        error: why it failed, or its state's message; None for a run that begins or succeeded.
    """
    own = [tag for tag in tags if not tag.startswith(ERROR_TAG)]
    tag = None if error is None else error_tag(str(error))
    return [*own, tag] if tag else own

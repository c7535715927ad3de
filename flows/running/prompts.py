"""Prompts of a run that unfold: into words before its body begins, by the seed it draws with."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic import JsonValue

from safelight.errors import MissingFileError
from safelight.prompts.grammar import parse
from safelight.prompts.unfolded import PROMPTS, Unfolded
from safelight.prompts.unfolding import unfold
from safelight.prompts.wildcards import Wildcards, current_wildcards

UNKNOWN = "words"
"""Stands for what a wildcard that is not here will give."""
WITHIN = ("overrides", "changes")
"""Parameters that hold others, by step or by name."""


def check_prompts(called: Mapping[str, Any]) -> None:
    """Refuse prompts that are not well written; what they name is not looked for.

    Raises:
        BadTemplateError: which, and where.
    """
    for field, text in _prompts("", called):
        parse(text, field)


def unfolded(
    called: Mapping[str, Any], wildcards: Wildcards | None = None
) -> tuple[dict[str, Any], tuple[Unfolded, ...]]:
    """What a body is called with, all its prompts unfolded, and those that held choices.

    Args:
        called: checked parameters with their seed.
        wildcards: files that prompts may name; None takes those of the volume.

    Raises:
        PipelineError: a prompt is not well written, or names what is not there.
    """
    found: list[Unfolded] = []
    seed = called.get("seed")
    drawn = seed if isinstance(seed, int) else 0
    filled = _filled("", called, drawn, wildcards or current_wildcards(), found)
    return filled, tuple(found)


def unfolded_stage(
    stage: str, given: Mapping[str, JsonValue], seed: int | None
) -> tuple[dict[str, JsonValue], tuple[Unfolded, ...]]:
    """The same for a stage of a pipeline, whose own parameters are given.

    Args:
        stage: what the pipeline calls it.
        given: its parameters, unchecked.
        seed: of the run; None where nothing is to run, and wildcards may be elsewhere.

    Raises:
        PipelineError: as `unfolded` says.
    """
    own = given.get("seed")
    drawn = own if isinstance(own, int) and own >= 0 else seed
    found: list[Unfolded] = []
    filled = dict(given)
    for name in PROMPTS:
        text = given.get(name)
        if not isinstance(text, str):
            continue
        try:
            one = unfold(name, text, drawn or 0, current_wildcards())
        except MissingFileError:
            if seed is not None:
                raise
            filled[name] = UNKNOWN
            continue
        if one is not None:
            filled[name] = one.text
            found.append(one.model_copy(update={"field": f"{stage}.{name}"}))
    return filled, tuple(found)


def _prompts(path: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, str) and name in PROMPTS:
            yield path + name, value
        elif isinstance(value, Mapping) and (path or name in WITHIN):
            yield from _prompts(f"{path}{name}.", cast("Mapping[str, Any]", value))


def _filled(
    path: str, values: Mapping[str, Any], seed: int, wildcards: Wildcards, into: list[Unfolded]
) -> dict[str, Any]:
    filled = dict(values)
    own = values.get("seed")
    drawn = own if isinstance(own, int) and own >= 0 else seed
    for name, value in values.items():
        if isinstance(value, str) and name in PROMPTS:
            one = unfold(name, value, drawn, wildcards)
            if one is not None:
                filled[name] = one.text
                into.append(one.model_copy(update={"field": path + name}))
        elif isinstance(value, Mapping) and (path or name in WITHIN):
            inner = cast("Mapping[str, Any]", value)
            filled[name] = _filled(f"{path}{name}.", inner, drawn, wildcards, into)
    return filled

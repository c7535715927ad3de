"""The prompts of an earlier run, so that it draws the same words whatever has changed since."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from safelight.errors import PipelineError
from safelight.prompts.grammar import literal
from safelight.prompts.unfolded import PROMPTS, Unfolded
from safelight.prompts.unfolding import unfold
from safelight.prompts.wildcards import Wildcards, current_wildcards


def with_same_words(
    parameters: Mapping[str, JsonValue], unfolded: Sequence[Unfolded], *, knew: bool
) -> tuple[dict[str, JsonValue], list[str]]:
    """The parameters of a run, and which of its prompts no longer unfold as they did.

    A prompt that still does stays as it was written. One that does not, since a wildcard has
    changed or is elsewhere, becomes its words.

    Args:
        parameters: as the run was called, with its seed.
        unfolded: its prompts that held choices.
        knew: whether prompts unfolded at all when it ran; braces meant themselves before.
    """
    changed: list[str] = []
    words = {(one.field.rpartition(".")[2], one.template): one for one in unfolded}
    wildcards = current_wildcards()

    def again(name: str, text: str, seed: int) -> str:
        before = next(
            (o for (field, t), o in words.items() if field == name and text.endswith(t)), None
        )
        if before is None:
            return text if knew else literal(text)
        if _words(name, text, seed, wildcards) == before.text:
            return text
        changed.append(before.field)
        return literal(before.text)

    def inside(value: JsonValue, seed: int) -> JsonValue:
        if isinstance(value, list):
            return [inside(each, seed) for each in value]
        if not isinstance(value, dict):
            return value
        own = value.get("seed")
        drawn = own if isinstance(own, int) and own >= 0 else seed
        return {
            name: again(name, each, drawn)
            if name in PROMPTS and isinstance(each, str)
            else inside(each, drawn)
            for name, each in value.items()
        }

    found = inside(dict(parameters), 0)
    return (found if isinstance(found, dict) else {}), changed


def _words(name: str, text: str, seed: int, wildcards: Wildcards) -> str | None:
    try:
        unfolded = unfold(name, text, seed, wildcards)
    except PipelineError:
        return None
    return text if unfolded is None else unfolded.text

"""Characters in flows: by their LoRA where one was trained, else by their reference pictures."""

from collections.abc import Sequence
from typing import Annotated

from prefect.logging import get_run_logger
from pydantic import Field

from safelight.characters.keeping import find
from safelight.characters.records import Character
from safelight.characters.versions import LoraVersion, install, list_versions
from safelight.errors import (
    ConsentMissingError,
    DependencyMissingError,
    PipelineError,
)
from safelight.store.artifact import ArtifactRef
from safelight.weights.add_ons import find_add_on
from safelight.weights.checkpoints import find_checkpoint
from tasks.base.recorder import recorder
from tasks.base.sampling import ReferenceUse
from tasks.detail import DetailParams
from tasks.generate import GenerateParams
from tasks.identity import IdentityParams

MOST_REFERENCES = 3
"""That an IP-Adapter looks at."""
DEFAULT = "default"
"""The IP-Adapter where nothing else is said."""
Shown = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=100,
        description="Name or id of a character that the picture shows: by its LoRA where one was "
        "trained on this model, else by an IP-Adapter and its reference pictures.",
    ),
]


def find_character(named: str) -> Character:
    """A character that a run shows or learns, with the consent to that on the run's record.

    Raises:
        MissingFileError: there is none.
        ConsentMissingError: it is a person, and nobody agreed to one of its pictures.
    """
    character = find(named)
    used = {f"character.{at}": one.sha256 for at, one in enumerate(character.pictures)}
    if character.kind == "person":
        given = character.consent
        lacking = [one.sha256[:12] for one in character.pictures if one.consent is None]
        if given is None or lacking:
            raise ConsentMissingError(
                f"nobody agreed to the use of character {character.id}"
                + (f" and of its pictures {', '.join(lacking)}" if lacking else ""),
                "ask the person, then make the character again with consent_given",
            )
        recorder().consent = given.model_copy(update={"references": used})
    return character


def with_character(
    knobs: GenerateParams | IdentityParams | DetailParams, prompt: str, named: str
) -> tuple[str, list[ArtifactRef]]:
    """How a character comes into a picture.

    Args:
        knobs: of the drawing.
        prompt: the caller's.
        named: the character.

    Returns:
        The prompt with the character's word, LoRA and style, and its pictures where an IP-Adapter
        is to look at them.

    Raises:
        MissingFileError: there is no such character.
        ConsentMissingError: it is a person, and nobody agreed.
        DependencyMissingError: it has no LoRA for this model, and there is no IP-Adapter, or it has
            no pictures.
    """
    character = find_character(named)
    model = find_checkpoint(knobs.model).sha256
    trained = [v for v in list_versions(character.id) if v.config.get("model_sha256") == model]
    told = get_run_logger()
    if trained:
        version = trained[-1]
        install(version)
        told.info("character %s by its LoRA %s", character.id, version.model)
        return _worded(prompt, character, version), []
    _require_adapter(_adapter(knobs), character)
    told.info("character %s by its reference pictures", character.id)
    refs = [character.ref(one) for one in character.pictures[:MOST_REFERENCES]]
    return _worded(prompt, character, None), refs


def in_portrait(
    knobs: GenerateParams | IdentityParams | DetailParams,
    prompt: str,
    named: str | None,
    people: Sequence[ArtifactRef],
) -> tuple[str, tuple[ArtifactRef, ...]]:
    """The same for presets, which take photographs in its place.

    Raises:
        PipelineError: as `with_character`.
    """
    if named is None:
        return prompt, tuple(people)
    worded, references = with_character(knobs, prompt, named)
    return worded, tuple(references)


def in_faces(knobs: DetailParams, named: str | None, people: Sequence[ArtifactRef]) -> DetailParams:
    """Parameters that draw faces again as those of a character, or of the person on photographs.

    Raises:
        PipelineError: as `with_character`.
    """
    prompt, shown = in_portrait(knobs, knobs.prompt, named, people)
    if named is not None and not shown:
        return knobs.but(prompt=prompt, reference=None)
    images = tuple(ref.uri for ref in shown)
    tuned = knobs.reference or ReferenceUse(images=images)
    return knobs.but(prompt=prompt, reference=tuned.but(images=images))


def _adapter(knobs: GenerateParams | IdentityParams | DetailParams) -> str:
    """Name of the IP-Adapter that would look at pictures."""
    if not isinstance(knobs, DetailParams):
        return knobs.ipadapter_model
    named = knobs.reference
    return DEFAULT if named is None else named.model


def _require_adapter(adapter: str, character: Character) -> None:
    train = f"train it: safelight train lora --character {character.id}"
    if not character.pictures:
        raise DependencyMissingError(
            f"character {character.id} has no LoRA for this model and no reference pictures",
            f"add pictures, then {train}",
        )
    try:
        find_add_on("ip_adapter", adapter)
    except PipelineError as missing:
        raise DependencyMissingError(
            f"character {character.id} has no LoRA for this model, and its pictures need an "
            f"IP-Adapter: {missing.problem}",
            f"{train}; or {missing.remedy}",
        ) from missing


def _worded(prompt: str, character: Character, version: LoraVersion | None) -> str:
    """With the word that was learnt, unless the prompt has it, the style, and the LoRA's tag."""
    words = [prompt]
    trigger = None if version is None else version.config.get("trigger")
    if isinstance(trigger, str) and trigger and trigger.casefold() not in prompt.casefold():
        words.insert(0, trigger)
    text = ", ".join([*words, *([character.style] if character.style else [])])
    return text if version is None else f"{text} <lora:{version.model}:1>"

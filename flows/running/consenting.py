"""Consent to the use of a person's likeness: asked for before anything loads, and recorded."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

from prefect.context import FlowRunContext
from pydantic import AfterValidator, Field

from flows.running.inputs import Changes, Media, ingest_media
from presets.base.catalog import find_preset, preset_ids
from presets.base.preset import K, Preset
from safelight.account import person
from safelight.errors import (
    ConsentMissingError,
    InvalidFieldValueError,
    MissingRequiredFieldError,
)
from safelight.provenance.consent import STATEMENT, ConsentRecord
from safelight.store.artifact import ArtifactRef
from tasks.base.ingest import ingest
from tasks.base.recorder import Recorder, recorder

MOST_REFERENCES = 3
GIVEN = "consent_given"


def _listed(given: list[str] | str | None) -> list[str] | None:
    return [given] if isinstance(given, str) else given


Photographs = Annotated[list[Media], Field(min_length=1, max_length=MOST_REFERENCES)]
_TOLD = (
    "One to three photographs of the person to show: files under the volume root, or store: links "
    "of artifacts. Needs an IP-Adapter in the models folder, and consent."
)
References = Annotated[
    Photographs | Media | None, AfterValidator(_listed), Field(description=_TOLD)
]
Consent = Annotated[bool, Field(description=STATEMENT)]
ConsentBy = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="Who gives the consent, for the record. None: who created the run, or the "
        "account that runs it.",
    ),
]


def check_consent(flow: str, called: Mapping[str, Any]) -> None:
    """Refuse a call of a preset that uses a likeness no one has agreed to.

    Raises:
        PipelineError: as `require_consent` says.
    """
    if GIVEN in called and flow in preset_ids():
        require_consent(
            find_preset(flow),
            called[GIVEN],
            called.get("identity_reference"),
            called.get("overrides") or {},
            called.get("character"),
        )


def require_consent(
    preset: Preset[K],
    consent: bool,
    references: Sequence[str] | None,
    overrides: Changes,
    character: str | None = None,
) -> None:
    """Refuse a run that uses a likeness no one has agreed to, or does not know whose.

    The consent to a character stands on its own record, which the run looks at before it draws.

    Raises:
        ConsentMissingError: the preset asks for consent here and `consent` is false.
        InvalidFieldValueError: both photographs and a character are given.
        MissingRequiredFieldError: neither is, and the preset shows a person.
    """
    if references and character is not None:
        raise InvalidFieldValueError(
            f"{preset.id}: character and identity_reference are given, and one person is shown",
            "leave one of them out",
        )
    if preset.consent == "always" and not references and character is None:
        raise MissingRequiredFieldError(
            f"{preset.id} shows a person, and identity_reference and character are missing",
            "give identity_reference one to three photographs, or character a name",
        )
    given = bool(references) or bool(_overriding(overrides))
    needed = preset.consent != "never" and given
    if needed and not consent:
        raise ConsentMissingError(
            f"{preset.id} works on a person's likeness and consent_given is false",
            f"ask the person, then set consent_given to true, which says: {STATEMENT[:-1]}",
        )


def people_of(
    preset: Preset[K],
    references: Sequence[str] | None,
    consent: bool,
    by: str | None,
    overrides: Changes,
    character: str | None = None,
) -> list[ArtifactRef]:
    """The photographs of the person that a run shows, with the consent to that on its record.

    Raises:
        PipelineError: as `require_consent` says; a photograph is not there, or is no picture.
    """
    require_consent(preset, consent, references, overrides, character)
    people = [
        ingest_media(f"identity_reference.{at}", place, ("image",))
        for at, place in enumerate(references or ())
    ]
    used = {f"identity_reference.{at}": ref.sha256 for at, ref in enumerate(people)}
    used |= {name: ingest(at, ("image",)).sha256 for name, at in _overriding(overrides).items()}
    if used:
        recorder().consent = consent_record(used, datetime.now(UTC), by)
    return people


def consent_record(used: Mapping[str, str], when: datetime, by: str | None = None) -> ConsentRecord:
    """The record of a consent.

    Args:
        used: name of each photograph to its sha256.
        when: it was given.
        by: who gave it; None takes who created the run, or the account that runs it.
    """
    who, known_by = _who(by)
    return ConsentRecord(
        who=who,
        known_by=known_by,
        when=when.isoformat(),
        statement=STATEMENT,
        references=dict(used),
    )


def recorded_consent(record: Recorder, started: datetime) -> ConsentRecord | None:
    """The consent that a run was given: to its preset, or to a stage with a field for it."""
    if record.consent is not None:
        return record.consent
    used = {
        f"{facts.name}.{at}": ref.sha256
        for facts in [*record.facts]
        if facts.parameters.get(GIVEN) is True
        for at, ref in enumerate(facts.sources)
    }
    return consent_record(used, started) if used else None


def _who(by: str | None) -> tuple[str, Literal["stated", "server", "account"]]:
    if by is not None:
        return by, "stated"
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    creator = run.created_by.display_value if run is not None and run.created_by else None
    return (creator, "server") if creator else (person(), "account")


def _overriding(overrides: Changes) -> dict[str, str]:
    """Reference pictures that overrides name, by where they stand; they may show a person too."""
    found: dict[str, str] = {}
    for step, fields in overrides.items():
        images = fields.get("ipadapter_images")
        places = cast("list[Any]", images) if isinstance(images, list) else []
        for at, place in enumerate(places):
            if isinstance(place, str):
                found[f"overrides.{step}.ipadapter_images.{at}"] = place
    return found

"""Characters: made, found, changed; their pictures looked into before they are kept."""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from safelight.account import person
from safelight.audit.log import record
from safelight.characters.quality import require_quality
from safelight.characters.records import (
    ID,
    MOST_PICTURES,
    PREFIX,
    Character,
    CharacterPicture,
    Kind,
    Tombstone,
    picture_key,
    record_key,
    tombstone_key,
)
from safelight.errors import (
    ConsentMissingError,
    InvalidFieldValueError,
    MissingFileError,
)
from safelight.media.images import decode_still
from safelight.media.layers import on_white
from safelight.params import refusal
from safelight.provenance.consent import STATEMENT, ConsentRecord
from safelight.store.disk import disk_errors
from safelight.store.inputs import looked_into
from safelight.store.store import current_store


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def create(
    name: str,
    *,
    kind: Kind = "person",
    style: str = "",
    trigger: str | None = None,
    consent_given: bool = False,
    consent_by: str | None = None,
) -> Character:
    """Make a character.

    Args:
        name: what people call it.
        kind: pictures of a person show one face, and need consent.
        style: added to prompts that show it.
        trigger: the word for it; None is a word of its own.
        consent_given: whether the person agreed; see `STATEMENT`.
        consent_by: who says so; None is the account of this process.

    Raises:
        ConsentMissingError: it is a person, and nobody agreed.
        InvalidFieldValueError: another one has the name, or a field is outside its limits.
    """
    if kind == "person":
        require_consent(consent_given, f"character {name[:80]!r} is a person")
    drawn = f"c{secrets.token_hex(6)}"
    made = _checked(
        {
            "id": drawn,
            "name": name,
            "kind": kind,
            "style": style,
            "trigger": f"chr{drawn[1:7]}" if trigger is None else trigger,
            "created": now(),
            "updated": now(),
            "consent": consent_of({}, consent_by) if kind == "person" else None,
        }
    )
    _require_free(made)
    if made.consent is not None:
        record("consent.given", made.id, {"for": "character"})
    record("character.made", made.id, {"kind": kind})
    return save(made)


def save(character: Character) -> Character:
    """Keep a character as it is now."""
    current_store().backend.write(
        character.key, character.model_dump_json(indent=2).encode(), "application/json"
    )
    return character


def list_all() -> list[Character]:
    """All characters, by name."""
    backend = current_store().backend
    found = [
        Character.model_validate_json(backend.read(key))
        for key in backend.list(f"{PREFIX}/")
        if ID.fullmatch(key.removeprefix(f"{PREFIX}/").removesuffix(".json"))
    ]
    return sorted(found, key=lambda one: (one.name.casefold(), one.id))


def find(named: str) -> Character:
    """The character with a name or id.

    Raises:
        MissingFileError: there is none, or it was deleted.
    """
    backend = current_store().backend
    if ID.fullmatch(named):
        if backend.exists(record_key(named)):
            return Character.model_validate_json(backend.read(record_key(named)))
        if backend.exists(tombstone_key(named)):
            told = Tombstone.model_validate_json(backend.read(tombstone_key(named)))
            raise MissingFileError(
                f"character {named} was deleted at {told.when} for {told.by}",
                "name another character",
            )
    found = next((one for one in list_all() if one.name == named), None)
    if found is None:  # names of others are not told: records of refused runs would keep them
        raise MissingFileError(
            f"there is no character {named[:80]!r}",
            "take a name of safelight characters list, or make it: safelight characters create",
        )
    return found


def update(
    named: str,
    *,
    name: str | None = None,
    style: str | None = None,
    trigger: str | None = None,
) -> Character:
    """Change what is given.

    Raises:
        MissingFileError: there is no such character.
        InvalidFieldValueError: another one has the name, or a field is outside its limits.
    """
    old = find(named)
    given = {"name": name, "style": style, "trigger": trigger}
    changes = {field: value for field, value in given.items() if value is not None}
    changed = _checked({**old.model_dump(), **changes, "updated": now()})
    _require_free(changed)
    record("character.changed", old.id, {"fields": ", ".join(sorted(changes))})
    return save(changed)


def add_picture(
    named: str,
    file: Path,
    *,
    consent_given: bool = False,
    consent_by: str | None = None,
    called: str | None = None,
) -> CharacterPicture:
    """Look into a picture and keep it.

    Args:
        named: the character.
        file: opened safely, or of the person at this machine.
        consent_given: whether the person agreed to the use of this picture.
        consent_by: who says so.
        called: name of the file in messages.

    Raises:
        ConsentMissingError: it is of a person, and nobody agreed.
        InvalidMediaError: it is no picture, or not fit to be a reference.
        InvalidFieldValueError: there are too many already.
    """
    character = find(named)
    what = called or file.name
    if character.kind == "person":
        require_consent(consent_given, f"{what} shows a person")
    if len(character.pictures) >= MOST_PICTURES:
        raise InvalidFieldValueError(
            f"{character.name} has {MOST_PICTURES} pictures, no more are kept",
            "remove some first",
        )
    content, media_type = picture_bytes(file)
    pixels = on_white(decode_still(content).pixels)
    digest = hashlib.sha256(content).hexdigest()
    known = [one.likeness for one in character.pictures]
    alike = require_quality(pixels, character.kind, known, what)
    person_agreed = character.kind == "person"
    picture = CharacterPicture(
        sha256=digest,
        media_type=media_type,
        bytes=len(content),
        width=pixels.shape[1],
        height=pixels.shape[0],
        likeness=alike,
        added=now(),
        consent=consent_of({what: digest}, consent_by) if person_agreed else None,
    )
    if picture.consent is not None:
        record("consent.given", character.id, {"for": "picture"})
    current_store().backend.write(picture_key(character.id, picture), content, media_type, digest)
    latest = find(character.id)
    save(latest.model_copy(update={"pictures": (*latest.pictures, picture), "updated": now()}))
    return picture


def picture_bytes(file: Path) -> tuple[bytes, str]:
    """Look into a picture: the bytes that are kept of it, and its media type.

    Raises:
        InvalidMediaError: it is none, or damaged.
    """
    found = looked_into(file, ("image",))
    with disk_errors(file):
        return (file.read_bytes() if found.data is None else found.data), found.media_type


def remove_picture(named: str, sha256: str) -> Character:
    """Take a picture away.

    Raises:
        MissingFileError: there is no such picture.
    """
    character = find(named)
    gone = [one for one in character.pictures if one.sha256.startswith(sha256) and sha256]
    if len(gone) != 1:
        raise MissingFileError(
            f"{character.name} has {len(gone)} pictures whose sha256 begins with {sha256[:64]!r}",
            "name one as safelight characters show lists it",
        )
    left = tuple(one for one in character.pictures if one is not gone[0])
    record("character.picture_removed", character.id)
    saved = save(character.model_copy(update={"pictures": left, "updated": now()}))
    current_store().backend.delete(picture_key(character.id, gone[0]))
    return saved


def require_consent(given: bool, why: str) -> None:
    """Refuse what nobody agreed to.

    Raises:
        ConsentMissingError: nobody did.
    """
    if not given:
        raise ConsentMissingError(
            f"{why}, and consent_given is false",
            f"ask the person, then set consent_given to true, which says: {STATEMENT[:-1]}",
        )


def consent_of(used: Mapping[str, str], by: str | None) -> ConsentRecord:
    """The record of a consent that is given now."""
    return ConsentRecord(
        who=by or person(),
        known_by="stated" if by else "account",
        when=now(),
        statement=STATEMENT,
        references=dict(used),
    )


def _checked(fields: Mapping[str, object]) -> Character:
    try:
        return Character.model_validate(fields)
    except ValidationError as error:
        raise refusal(error, "character") from error


def _require_free(character: Character) -> None:
    for one in list_all():
        if one.name == character.name and one.id != character.id:
            raise InvalidFieldValueError(
                f"there is a character {character.name!r} already, {one.id}",
                "choose another name",
            )

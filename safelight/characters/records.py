"""A character as the store keeps it: `characters/ID.json`, its pictures below `characters/ID/`."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from safelight.provenance.consent import ConsentRecord
from safelight.store.artifact import EXTENSIONS, ArtifactRef
from safelight.store.store import SCHEME

PREFIX = "characters"
"""Of the store's keys."""
ID = re.compile(r"c[0-9a-f]{12}")
Kind = Literal["person", "thing"]
MOST_PICTURES = 200


class CharacterPicture(BaseModel):
    """One reference picture."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of its bytes."""
    media_type: str = Field(pattern=r"^image/[a-z]{3,5}$")
    """PNG, JPEG or WebP, as a rule."""
    bytes: int = Field(ge=1)
    """Of the file."""
    width: int = Field(ge=1, le=100_000)
    """Pixels."""
    height: int = Field(ge=1, le=100_000)
    """Pixels."""
    likeness: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Equal, or nearly so, for pictures that look the same."""
    added: str = Field(max_length=40)
    """ISO 8601 with its offset."""
    consent: ConsentRecord | None = None
    """Who agreed to its use; None for what is no person."""


class Character(BaseModel):
    """Somebody or something that is drawn again and again."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str = Field(pattern=r"^c[0-9a-f]{12}$")
    """Drawn when it was made; stands in keys and files in place of the name."""
    name: str = Field(
        min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$"
    )
    """What people call it; no two have one name."""
    kind: Kind = "person"
    """Pictures of a person show one face, and need consent."""
    style: str = Field(default="", max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")
    """Added to prompts that show it."""
    trigger: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")
    """The word for it in captions and prompts."""
    created: str = Field(max_length=40)
    """ISO 8601 with its offset."""
    updated: str = Field(max_length=40)
    """The same."""
    consent: ConsentRecord | None = None
    """Who agreed that it exists; None for what is no person."""
    pictures: tuple[CharacterPicture, ...] = Field(default=(), max_length=MOST_PICTURES)
    """In the order in which they came."""

    @property
    def key(self) -> str:
        """Where the store has it."""
        return record_key(self.id)

    def ref(self, picture: CharacterPicture) -> ArtifactRef:
        """One of its pictures as stages have it."""
        return ArtifactRef(
            uri=SCHEME + picture_key(self.id, picture),
            sha256=picture.sha256,
            media_type=picture.media_type,
            bytes=picture.bytes,
            width=picture.width,
            height=picture.height,
        )


class Tombstone(BaseModel):
    """What is left of a character that was deleted: nothing of it, and who asked."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str = Field(pattern=r"^c[0-9a-f]{12}$")
    """Of what was there."""
    by: str
    """Who asked for it."""
    when: str
    """ISO 8601 with its offset."""
    reason: str = ""
    """In their words."""
    pictures: int = 0
    """Reference pictures that were removed."""
    loras: int = 0
    """Versions of its LoRA that were removed."""
    files: int = 0
    """Everything in the store that was removed with them: copies, datasets, checkpoints, what was
    drawn with them, and the records of it."""


def record_key(character_id: str) -> str:
    """Where the record of a character lies."""
    return f"{PREFIX}/{character_id}.json"


def tombstone_key(character_id: str) -> str:
    """Where what is left of it lies."""
    return f"{PREFIX}/{character_id}.deleted.json"


def picture_key(character_id: str, picture: CharacterPicture) -> str:
    """Where one of its pictures lies."""
    end = EXTENSIONS.get(picture.media_type, ".bin")
    return f"{PREFIX}/{character_id}/{picture.sha256[:2]}/{picture.sha256}{end}"

"""Lines of the audit log: each holds the hash of the one before it."""

import hashlib
import json
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

BEGINNING = "0" * 64
"""Stands where the first line of all names the one before it."""


class Line(BaseModel):
    """Something that happened."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    number: int = Field(ge=1)
    """From 1, without gaps."""
    at: datetime
    """When it was written, UTC."""
    event_type: str
    """What happened, for instance `key.made`."""
    actor: str
    """Who did it."""
    subject: str
    """What it was done to: the id of a job, a key or a character; empty for none."""
    details: dict[str, JsonValue]
    """More of it."""
    previous: str
    """Hash of the line before it."""
    hash: str
    """sha256 of all other fields."""


def sealed(fields: dict[str, Any]) -> tuple[bytes, str]:
    """A line as it is written, its fields as canonical JSON with their hash; and the hash."""
    digest = hashlib.sha256(_canonical(fields)).hexdigest()
    return _canonical({**fields, "hash": digest}) + b"\n", digest


def read_line(text: bytes) -> Line | None:
    """A line whose hash is that of its fields; None for anything else."""
    try:
        fields = json.loads(text)
        line = Line.model_validate_json(text)
    except (ValueError, ValidationError, RecursionError):
        return None
    said = fields.pop("hash")
    return line if said == hashlib.sha256(_canonical(fields)).hexdigest() else None


def _canonical(fields: dict[str, Any]) -> bytes:
    return json.dumps(
        fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()

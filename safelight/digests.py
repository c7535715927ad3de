"""Content addresses."""

import hashlib
from pathlib import Path


def sha256_of(source: Path | bytes) -> str:
    """Hex sha256 of bytes or of a file."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

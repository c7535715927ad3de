"""Forms with files, read into a folder as they come."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from starlette.datastructures import UploadFile

from safelight.gateway.files import arrived

FORM = "multipart/form-data"
MOST_FILES = 32
MOST_FIELDS = 64
FIELD_BYTES = 2**20
"""Of a field that is no file."""
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Form:
    """What a form brought."""

    fields: dict[str, str]
    """Fields that are no files; the last of each name."""
    files: list[tuple[str, Path]]
    """Name of the field, and where the file is now."""

    def named(self, name: str) -> Path | None:
        """The last file of a field."""
        return dict(self.files).get(name)


def is_form(content_type: str) -> bool:
    """Whether a body is a form with files."""
    return content_type.partition(";")[0].strip().lower() == FORM


async def read_form(request: Request, folder: Path) -> Form:
    """Read a form; its files go into a folder.

    Raises:
        HTTPException: it cannot be read, or has more than a form may have.
        DiskFullError: no room is left.
    """
    fields: dict[str, str] = {}
    files: list[tuple[str, Path]] = []
    limits = {"max_files": MOST_FILES, "max_fields": MOST_FIELDS, "max_part_size": FIELD_BYTES}
    async with request.form(**limits) as form:
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                fields[name] = value
                continue
            path = folder / f"file-{len(files)}"
            await arrived(_chunks(value), path)
            files.append((name, path))
    return Form(fields, files)


async def _chunks(file: UploadFile) -> AsyncGenerator[bytes]:
    while chunk := await file.read(CHUNK_BYTES):
        yield chunk

"""Writes a record into image bytes and reads it back."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from safelight.provenance.record import FileRecord

KEY = "safelight"


def image_bytes(pixels: NDArray[np.uint8], record: FileRecord, media_type: str) -> bytes:
    """Encode (H, W, 3) uint8 sRGB with its record; the same input gives the same bytes."""
    buffer = io.BytesIO()
    text = PngImagePlugin.PngInfo()
    text.add_itxt(KEY, record.model_dump_json())
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=text, compress_level=1)
    return buffer.getvalue()


def read_record(path: Path) -> FileRecord | None:
    """The record inside a file, or None when it holds none."""
    try:
        with Image.open(path) as image:
            text = image.info.get(KEY)
    except UnidentifiedImageError:
        return None
    return FileRecord.model_validate_json(text) if isinstance(text, str) else None

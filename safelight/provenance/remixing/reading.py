"""Finds how a picture was made in its file, whoever wrote it there."""

import json
from pathlib import Path
from typing import Any, cast

from PIL import Image

from safelight.errors import InvalidFieldValueError, InvalidMediaError
from safelight.media.images import metadata_of
from safelight.provenance.carried import COMMENT, MAIN
from safelight.provenance.containers import JPEG, PNG, jpeg_comment, png_texts
from safelight.provenance.embed import read_record
from safelight.provenance.record import FileRecord
from safelight.provenance.remixing.comfyui import understand_comfyui
from safelight.provenance.remixing.invokeai import understand_invokeai
from safelight.provenance.remixing.understood import Understood
from safelight.provenance.remixing.webui import understand_webui

LARGEST_FILE = 512 * 2**20
"""Bytes of a file whose EXIF is looked for."""
_ENCODINGS = {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "latin-1", b"\0" * 8: "utf-8"}
"""How the comment of EXIF says what it is written in."""


def understand(path: Path) -> Understood:
    """How a picture was made.

    Safelight's own record is read first, then the texts of AUTOMATIC1111, InvokeAI and ComfyUI.

    Args:
        path: a picture or video on this machine.

    Raises:
        InvalidFieldValueError: the file says nothing that is understood.
        MissingFileError: there is no such file.
    """
    record = read_record(path)
    found = None if record is None else _ours(record)
    if found is not None:
        return found
    texts = texts_of(path)
    if "parameters" in texts:
        return understand_webui(texts["parameters"])
    metadata = _object(texts.get("invokeai_metadata"))
    if metadata:
        return understand_invokeai(metadata)
    graph = _object(texts.get("prompt"))
    if graph:
        return understand_comfyui(graph)
    held = ", ".join(sorted(texts)) or "no text at all"
    raise InvalidFieldValueError(
        f"{path.name} says nothing of how it was made; it holds {held}; expected the record of "
        "Safelight, or what AUTOMATIC1111, InvokeAI or ComfyUI write into their pictures",
        "pass the file as the program wrote it: editors and chats take such texts out",
    )


def _ours(record: FileRecord) -> Understood | None:
    """The last stage that drew from a prompt alone; what was done later takes no part."""
    chain = [*record.history, record]
    asked = [at for at, step in enumerate(chain) if "prompt" in step.parameters]
    drawn = [at for at in asked if chain[at].origin == "creates"] or asked
    if not drawn:
        return None
    drawing = chain[drawn[-1]]
    left = [f"stage {step.stage}: it takes no part" for step in chain[drawn[-1] + 1 :]]
    if drawing.sources:
        left.insert(0, f"stage {drawing.stage}: the picture that it drew over takes no part")
    return Understood(tool="Safelight", parameters=drawing.parameters, left=tuple(left))


def texts_of(path: Path) -> dict[str, str]:
    """Texts by keyword; the comment of EXIF or of a JPEG counts as `parameters`."""
    with path.open("rb") as file:
        head = file.read(len(PNG))
    if head == PNG:
        texts = png_texts(path)
        if texts:
            return texts
    if path.stat().st_size > LARGEST_FILE:
        return {}
    comment = _exif_comment(path.read_bytes())
    if comment is None and head.startswith(JPEG):
        comment = jpeg_comment(path)
    return {"parameters": comment} if comment else {}


def _exif_comment(data: bytes) -> str | None:
    try:
        block, _ = metadata_of(data)
    except InvalidMediaError:
        return None
    if not block:
        return None
    read = Image.Exif()
    try:
        read.load(block)
        written: object = read.get_ifd(MAIN).get(COMMENT)
    except Exception:  # noqa: BLE001  # the edge to Pillow's reader of strangers' EXIF
        return None
    if isinstance(written, str):
        return written.strip("\0 ") or None
    if not isinstance(written, bytes):
        return None
    encoding = _ENCODINGS.get(written[:8])
    text = written[8:] if encoding else written
    if encoding == "utf-16-be" and text[1::2].count(0) > text[::2].count(0):
        encoding = "utf-16-le"  # in the order of the numbers around it, as some programs write it
    return text.decode(encoding or "utf-8", "replace").strip("\0 ") or None


def _object(text: str | None) -> dict[str, Any]:
    """A JSON object; an empty one where the text is none."""
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}

"""Signs a finished file: what stage made it, of what, with which model. Nothing is written after.

The same file, sources and key give the same bytes.
"""

import hashlib
import io
import json
import threading
from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import c2pa
from pydantic import JsonValue

from safelight.digests import sha256_of
from safelight.errors import InvalidFieldValueError, UnknownError
from safelight.installed import version
from safelight.marking.boxes import ManifestShapeError, repeatable
from safelight.marking.containers import put_into, put_into_mp4
from safelight.marking.credentials import Credentials, credentials
from safelight.marking.deciding import Source
from safelight.progress import note
from safelight.provenance.record import FileRecord
from safelight.provenance.xmp import source_type

STAGE = "org.safelight.stage"
"""The assertion that says what a stage did with which engine."""
_LOCK = threading.Lock()


def signed_picture(
    data: bytes, media_type: str, record: FileRecord, sources: Sequence[Source]
) -> bytes:
    """The bytes of a picture with its manifest.

    Args:
        data: PNG, JPEG or WebP.
        media_type: which of them.
        record: how it was made.
        sources: what it was made of; their own manifests go along.

    Raises:
        InvalidFieldValueError: C2PA does not take the studio's certificate.
    """
    target = io.BytesIO()
    manifest = _manifest(hashlib.sha256(data).digest(), record, sources)
    store = _signed(manifest, sources, media_type, io.BytesIO(data), target)
    return put_into(target.getvalue(), store, _repeatable(store))


def sign_video(path: Path, target: Path, record: FileRecord, sources: Sequence[Source]) -> None:
    """Write an MP4 with its manifest; see `signed_picture`."""
    manifest = _manifest(bytes.fromhex(sha256_of(path)), record, sources)
    with path.open("rb") as source, target.open("w+b") as written:
        store = _signed(manifest, sources, "video/mp4", source, written)
    put_into_mp4(target, store, _repeatable(store))


def context_settings(anchors: bytes) -> dict[str, Any]:
    """How C2PA's library works here: it asks no one on a network and draws no thumbnails."""
    return {
        "version": 1,
        **({"trust": {"user_anchors": anchors.decode()}} if anchors else {}),
        "builder": {"thumbnail": {"enabled": False}},
        "verify": {
            "remote_manifest_fetch": False,
            "ocsp_fetch": False,
            "verify_after_sign": False,  # read back by the tests of every format
            "verify_trust": True,
        },
    }


@lru_cache(maxsize=2)
def _context(owner: Credentials) -> c2pa.Context:
    return c2pa.Context(c2pa.Settings.from_dict(context_settings(owner.anchor)))


@lru_cache(maxsize=2)
def _signer(owner: Credentials) -> c2pa.Signer:
    return c2pa.Signer.from_info(
        c2pa.C2paSignerInfo(
            alg=owner.algorithm.encode(),
            sign_cert=owner.chain,
            private_key=owner.key_pem,
            ta_url=None,
        )
    )


def _signed(
    manifest: dict[str, Any],
    sources: Sequence[Source],
    media_type: str,
    source: IO[bytes],
    target: IO[bytes],
) -> bytes:
    owner = credentials()
    with _LOCK:
        try:
            signer = _signer(owner)
            with closing(c2pa.Builder(json.dumps(manifest), _context(owner))) as builder:
                for each in _read_by_c2pa(sources):
                    _add(builder, each, manifest["relationship"])
                return bytes(builder.sign(signer, media_type, source, target))
        except c2pa.C2paError as error:
            raise InvalidFieldValueError(
                f"C2PA does not sign with this certificate: {error}",
                "give SAFELIGHT_MARKING_CERTIFICATE a chain of the profile of C2PA, or unset it",
            ) from error


def _add(builder: c2pa.Builder, source: Source, relationship: str) -> None:
    facts = {"title": _title(source), "relationship": relationship} | _ids(source)
    try:
        with source.path.open("rb") as file:
            builder.add_ingredient(json.dumps(facts), source.media_type, file)
    except c2pa.C2paError as error:
        note(f"left aside of the source: its C2PA, which is damaged ({error})")
        with io.BytesIO(_PIXEL) as nothing:
            builder.add_ingredient(json.dumps(facts), "image/png", nothing)


def _read_by_c2pa(sources: Sequence[Source]) -> list[Source]:
    known = _readable()
    return list({each.sha256: each for each in sources if each.media_type in known}.values())


@lru_cache(maxsize=1)
def _readable() -> frozenset[str]:
    return frozenset(c2pa.Builder.get_supported_mime_types())


def _repeatable(store: bytes) -> bytes:
    try:
        return repeatable(store, credentials().sign)
    except ManifestShapeError as error:
        raise UnknownError(
            f"a manifest of C2PA is not built as expected: {error}",
            "install the version of c2pa-python that pyproject.toml names",
        ) from error


def _manifest(content: bytes, record: FileRecord, sources: Sequence[Source]) -> dict[str, Any]:
    known = [_ids(each)["instance_id"] for each in _read_by_c2pa(sources)]
    made_new = record.origin == "creates" or not known
    several = len(known) > 1
    made: dict[str, Any] = {
        "claim_generator_info": [{"name": "Safelight", "version": version("safelight")}],
        "title": record.stage,
        "relationship": "inputTo" if made_new else "componentOf" if several else "parentOf",
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {"actions": _actions(record, known, made_new=made_new)},
            },
            {"label": STAGE, "data": _facts(record)},
        ],
    }
    identity = hashlib.sha256(content + json.dumps(made).encode() + credentials().fingerprint)
    digest = identity.digest()
    return made | {
        "label": f"urn:c2pa:{UUID(bytes=digest[:16], version=4)}",
        "instance_id": f"xmp:iid:{UUID(bytes=digest[16:], version=4)}",
    }


def _actions(record: FileRecord, known: list[str], *, made_new: bool) -> list[dict[str, Any]]:
    done: dict[str, Any] = {
        "action": "c2pa.created" if made_new else "c2pa.edited",
        "description": record.stage,
        "softwareAgent": {"name": "Safelight", "version": version("safelight")},
    }
    if made_new:
        done["digitalSourceType"] = source_type(record)
        if known:
            done["parameters"] = {"ingredientIds": known}
        return [done]
    done["digitalSourceType"] = _own_type(record)
    if len(known) == 1:
        return [{"action": "c2pa.opened", "parameters": {"ingredientIds": known}}, done]
    begun = {"action": "c2pa.created", "digitalSourceType": source_type(record)}
    placed = [{"action": "c2pa.placed", "parameters": {"ingredientIds": [one]}} for one in known]
    return [begun, *placed, done]


def _own_type(record: FileRecord) -> str:
    """What the one stage did, whatever was done before."""
    return source_type(record.model_copy(update={"history": ()}))


def _facts(record: FileRecord) -> dict[str, JsonValue]:
    """What the file's own record tells of the work, without prompts and pictures.

    Not among the parameters of an action: the library writes those in any order.
    """
    model = record.parameters.get("model")
    told: dict[str, JsonValue] = {
        "stage": record.stage,
        "origin": record.origin,
        "engine": f"{record.engine_id} {record.engine_version}".strip(),
        "model": model if isinstance(model, str) else "",
        "weights": [*record.weights],
    }
    return {name: value for name, value in told.items() if value}


def _ids(source: Source) -> dict[str, str]:
    named = f"xmp:iid:{UUID(bytes=bytes.fromhex(source.sha256)[:16], version=4)}"
    return {"instance_id": named, "label": named}


def _title(source: Source) -> str:
    return f"{source.sha256[:16]}{source.path.suffix}"


_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)
"""A PNG of one pixel, in place of a source that cannot be read."""

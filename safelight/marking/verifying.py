"""Says of a file who signed it, how it was made, and whether it was changed since."""

import json
from pathlib import Path
from typing import Any, Literal, cast

import c2pa
from cryptography import x509
from pydantic import BaseModel, ConfigDict

from safelight.errors import InvalidFieldValueError, MissingFileError
from safelight.marking.credentials import known_credentials
from safelight.marking.signing import context_settings
from safelight.provenance.embed import read_record
from safelight.provenance.record import FileRecord
from safelight.settings import settings

Finding = Literal["intact", "changed", "unsigned", "unknown"]
_UNTRUSTED = "signingCredential.untrusted"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Step(_Frozen):
    """One stage that a file went through."""

    stage: str
    """Its name."""
    origin: str
    """What it did to pixels."""
    engine: str
    """Which did the work, and its version."""
    model: str = ""
    """By name, where one was named."""
    weights: tuple[str, ...] = ()
    """sha256 of each file of weights."""


class Signer(_Frozen):
    """Whose signature a file has."""

    name: str
    """As the certificate says; anybody can write that into one of their own."""
    organisation: str
    """Likewise."""
    serial: str
    """Of the certificate."""
    ours: bool
    """Whether it is this home's or the studio's, or one that was named as trusted."""


class Verdict(_Frozen):
    """What is to be said of a file."""

    finding: Finding
    """Signed and unchanged; changed after it was signed; with our record but no signature; or
    nothing that tells who made it."""
    signer: Signer | None = None
    """Who signed last."""
    program: str = ""
    """What made it, as the signature says."""
    steps: tuple[Step, ...] = ()
    """How, oldest first; what an unsigned or changed file says cannot be relied on."""
    sources: int = 0
    """Signed or unsigned files that it was made of, as the signature says."""
    problems: tuple[str, ...] = ()
    """What does not fit."""

    @property
    def trusted(self) -> bool:
        """Whether it is as one of our own signers left it."""
        return self.finding == "intact" and self.signer is not None and self.signer.ours


def verify(path: Path, trust: Path | None = None) -> Verdict:
    """Look into a file.

    Args:
        path: a picture or video.
        trust: PEM of further certificates whose signatures count as known.

    Raises:
        MissingFileError: there is no such file.
        InvalidFieldValueError: `trust` holds no certificates.
    """
    record = read_record(path)
    steps = tuple(_step(each) for each in ((*record.history, record) if record else ()))
    anchors = _anchors(trust)
    context = c2pa.Context(c2pa.Settings.from_dict(context_settings(anchors)))
    try:
        reader = c2pa.Reader(path, context=context)
    except c2pa.C2paError as error:
        if "ManifestNotFound" in str(error) or "NotSupported" in str(error):
            return _without(record, steps)
        return Verdict(finding="changed", steps=steps, problems=(f"its manifest: {error}",))
    with reader:
        told = cast("dict[str, Any]", json.loads(reader.json()))
        state = reader.get_validation_state() or ""
    return _read(told, state, steps)


def _without(record: FileRecord | None, steps: tuple[Step, ...]) -> Verdict:
    if record is None:
        return Verdict(finding="unknown", problems=("it holds neither a signature nor a record",))
    return Verdict(
        finding="unsigned",
        steps=steps,
        problems=("its signature was taken away, or it never had one",),
    )


def _read(told: dict[str, Any], state: str, steps: tuple[Step, ...]) -> Verdict:
    active = cast("dict[str, Any]", told["manifests"][told["active_manifest"]])
    failures = [
        failure
        for failure in cast("list[dict[str, str]]", told.get("validation_status") or [])
        if failure["code"] != _UNTRUSTED
    ]
    signed = cast("dict[str, str]", active.get("signature_info") or {})
    generator = cast("list[dict[str, str]]", active.get("claim_generator_info") or [{}])[0]
    return Verdict(
        finding="intact" if state in ("Valid", "Trusted") else "changed",
        signer=Signer(
            name=signed.get("common_name", ""),
            organisation=signed.get("issuer", ""),
            serial=signed.get("cert_serial_number", ""),
            ours=state == "Trusted",
        ),
        program=f"{generator.get('name', '')} {generator.get('version', '')}".strip(),
        steps=steps,
        sources=len(cast("list[Any]", active.get("ingredients") or [])),
        problems=tuple(
            f"{failure['code']}: {failure.get('explanation', '')}" for failure in failures
        ),
    )


def _step(record: FileRecord) -> Step:
    model = record.parameters.get("model")
    return Step(
        stage=record.stage,
        origin=record.origin,
        engine=f"{record.engine_id} {record.engine_version}".strip(),
        model=model if isinstance(model, str) else "",
        weights=record.weights,
    )


def _anchors(trust: Path | None) -> bytes:
    own = known_credentials(settings())
    pem = own.anchor if own is not None else b""
    if trust is None:
        return pem
    if not trust.is_file():
        raise MissingFileError(f"no file at {trust}", "check the path after --trust")
    given = trust.read_bytes()
    try:
        x509.load_pem_x509_certificates(given)
    except ValueError as error:
        raise InvalidFieldValueError(
            f"{trust.name} holds no certificates in PEM: {error}",
            "name a file of PEM certificates after --trust",
        ) from error
    return pem + given

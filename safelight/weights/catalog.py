"""Brings models into the models folder: by the name of a card, or by an address."""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock
from pydantic import JsonValue, SecretStr

from safelight.account import person
from safelight.errors import (
    ChecksumMissingError,
    InvalidFieldValueError,
    LicenseUnknownError,
    PipelineError,
)
from safelight.private import make_folder
from safelight.weights.asking import Web
from safelight.weights.cards import Card, cards, find_card
from safelight.weights.fetching import Fetch, OnBytes, Part, disk_refusals
from safelight.weights.hashing import weights_sha256
from safelight.weights.kinds import FOLDERS, ModelType
from safelight.weights.licences import is_known
from safelight.weights.looking import described_units
from safelight.weights.places import models_folder
from safelight.weights.registry import ModelInfo, registry
from safelight.weights.safety import check_weights
from safelight.weights.scanning import LONGEST_NAME, MODEL_FILES, unit_at
from safelight.weights.sources import LinkS3, Source, source_of

PARTS = ".fetching"
"""Folder of half fetched files, on the disk that the whole ones go to; a scan leaves it out."""
_FILE_NAME = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*")


@dataclass(frozen=True)
class Wanted:
    """What somebody asks for."""

    what: str
    """Name of a card, or an address."""
    name: str | None = None
    """To call the file by; None is its own."""
    model_type: ModelType | None = None
    """What it is for; None is what it says itself."""
    sha256: str | None = None
    """That the file must have, where its source does not say."""
    licence: str | None = None
    """That somebody found out, where its source does not say."""
    accept_licence: bool = False
    """Take it though no licence is known."""
    accept_unchecked: bool = False
    """Take it though no sha256 is known."""


@dataclass(frozen=True)
class Fetched:
    """What became of it."""

    info: ModelInfo
    """As the registry has it."""
    fetched: bool
    """False where the same file lay there already."""
    acknowledged: tuple[str, ...] = field(default=())
    """Codes of the errors in spite of which it was taken."""


def get_model(
    wanted: Wanted, link: LinkS3, on_bytes: OnBytes, fetch: Callable[[Web, OnBytes], Fetch] = Fetch
) -> Fetched:
    """Fetch a model, look into it as into any other, and enter it in the registry.

    Args:
        wanted: which one.
        link: signs addresses of S3.
        on_bytes: called with how much is there and how much there will be.
        fetch: makes what fetches.

    Raises:
        LicenseUnknownError: nobody says which licence it has.
        ChecksumMissingError: nobody says which sha256 it has.
        ChecksumMismatchError: it has another one; it is deleted.
        UnsafePickleError: it could run code when it is loaded; it is deleted.
        DiskFullError: there is no room for it.
        InvalidFieldValueError: another file of its name is there, or what is asked for is none.
        PipelineError: its server does not give it.
    """
    web = Web()
    try:
        source, card = _source(wanted, web, link)
        missing = _missing(wanted, source)
        kind = wanted.model_type or source.model_type
        folder = models_folder()
        with disk_refusals(folder):
            make_folder(folder / PARTS)
        key = hashlib.sha256(f"{source.address} {source.sha256}".encode()).hexdigest()[:32]
        with FileLock(folder / PARTS / f"{key}.lock"):
            there = _there(source, kind, folder)
            if there is not None:
                return Fetched(_entered(there, wanted, source, card, kind), fetched=False)
            part = Part(folder / PARTS / key / source.file_name)
            sha256 = fetch(web, on_bytes).run(source, part)
            path = _installed(part, kind, folder)
        info = _entered(path, wanted, source, card, kind)
        for code in missing:
            registry().acknowledge(source.address, code, person(), sha256)
        return Fetched(info, fetched=True, acknowledged=missing)
    finally:
        web.close()


def _source(wanted: Wanted, web: Web, link: LinkS3) -> tuple[Source, Card | None]:
    """Where the file is, with all that is known of it."""

    def ask(url: str, token: SecretStr | None) -> "dict[str, object]":
        return dict(web.object_at(url, token))

    card = cards().get(wanted.what) if ":" in wanted.what else find_card(wanted.what)
    if card is not None:
        found = source_of(card.source, ask, link, known=True)
        found = replace(
            found,
            file_name=card.file_name,
            size=card.size,
            sha256=card.sha256,
            licence=card.licence,
            base_model=card.base_model,
            model_type=card.model_type,
        )
    else:
        found = source_of(wanted.what, ask, link)
    if wanted.name is not None:
        suffix = os.path.splitext(found.file_name)[1]
        bare = wanted.name.removesuffix(suffix)
        found = replace(found, file_name=bare + suffix)
    _require_file_name(found.file_name)
    said = wanted.sha256.lower() if wanted.sha256 else None
    if said is not None and not re.fullmatch(r"[0-9a-f]{64}", said):
        raise InvalidFieldValueError(f"{said[:80]!r} is no sha256", "give 64 hexadecimal digits")
    return replace(
        found, sha256=said or found.sha256, licence=wanted.licence or found.licence
    ), card


def _require_file_name(name: str) -> None:
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in MODEL_FILES or not _FILE_NAME.fullmatch(name):
        raise InvalidFieldValueError(
            f"{name[:80]!r} is no name of a weights file",
            f"give the address of a file that ends in {', '.join(MODEL_FILES)}",
        )
    if len(stem) > LONGEST_NAME:
        raise InvalidFieldValueError(
            f"the name {name[:40]!r}... has more than {LONGEST_NAME} characters",
            "give it another with --name",
        )


def _missing(wanted: Wanted, source: Source) -> tuple[str, ...]:
    """Codes of what is not known, and was acknowledged."""
    missing: list[str] = []
    if not is_known(source.licence):
        if not wanted.accept_licence:
            raise LicenseUnknownError(
                f"no licence is told for {source.address}",
                "look for it on its page and give it with --licence, or take the model without "
                "one with --accept-licence",
            )
        missing.append(LicenseUnknownError.code)
    if source.sha256 is None:
        if not wanted.accept_unchecked:
            raise ChecksumMissingError(
                f"no sha256 is told for {source.address}",
                "look for it on its page and give it with --sha256, or take the file unchecked "
                "with --accept-unchecked",
            )
        missing.append(ChecksumMissingError.code)
    return tuple(missing)


def _there(source: Source, kind: ModelType | None, folder: Path) -> Path | None:
    """The file, where it lies there already.

    Raises:
        InvalidFieldValueError: another one has its place.
    """
    places = [kind] if kind is not None else list(ModelType)
    for place in places:
        path = folder / FOLDERS[place] / source.file_name
        if not path.exists():
            continue
        if source.sha256 is not None and weights_sha256(path) == source.sha256:
            return path
        if kind is not None:
            raise _taken(path, known=source.sha256 is not None)
    return None


def _installed(part: Part, kind: ModelType | None, folder: Path) -> Path:
    """Look into a file that is whole, then put it into its place at once.

    Raises:
        PipelineError: it is not what it should be, and deleted; or another has its place.
    """
    try:
        check_weights(part.file)
    except PipelineError:
        part.remove()
        raise
    if kind is None:
        unit = unit_at(part.file)
        told = described_units([unit])[0].kind if unit is not None else None
        kind = told or (
            ModelType.UPSCALER if part.file.suffix.lower() == ".pth" else ModelType.CHECKPOINT
        )
    target = folder / FOLDERS[kind] / part.file.name
    with disk_refusals(target):
        make_folder(target.parent)
        try:
            os.link(part.file, target)
        except FileExistsError as error:
            raise _taken(target) from error
        except OSError:  # a disk without hard links
            if target.exists():
                raise _taken(target) from None
            os.replace(part.file, target)
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    part.remove()
    return target


def _taken(path: Path, *, known: bool = True) -> InvalidFieldValueError:
    how = "with other content" if known else "and nobody tells whether it is the same"
    return InvalidFieldValueError(
        f"{path} is there already, {how}",
        "give the model another name with --name, or move that file away",
    )


def _entered(
    path: Path, wanted: Wanted, source: Source, card: Card | None, kind: ModelType | None
) -> ModelInfo:
    metadata: dict[str, JsonValue] = {"source": source.address}
    if source.sha256 is not None:
        metadata["published_sha256"] = source.sha256
    if source.trigger_words:
        metadata["trigger_words"] = list[JsonValue](source.trigger_words)
    if source.base_model is not None:
        metadata["base_model"] = source.base_model
    info = registry().register_model(
        path,
        kind,
        name=card.name if card is not None and wanted.name is None else None,
        description=card.description if card is not None else None,
        metadata=metadata,
        licence=source.licence if is_known(source.licence) else None,
    )
    registry().hashed(path, weights_sha256(path))
    return registry().at_path(info.file_path)

"""A character as one file, for another store: its record, its pictures and its LoRAs.

A zip of files whose names are known beforehand: `character.json`, `pictures/SHA256.EXT`,
`loras/vN.safetensors` and `loras/vN.json`. What comes from elsewhere is read with limits, name by
name, and nothing in it says where anything is written.
"""

import hashlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel, ConfigDict, ValidationError

from safelight.audit.log import record
from safelight.characters.keeping import find, list_all, now, picture_bytes, save
from safelight.characters.quality import likeness
from safelight.characters.records import (
    MOST_PICTURES,
    Character,
    CharacterPicture,
    picture_key,
    record_key,
    tombstone_key,
)
from safelight.characters.versions import (
    TENSORS,
    LoraVersion,
    config_key,
    file_key,
    list_versions,
)
from safelight.errors import (
    ChecksumMismatchError,
    ConsentMissingError,
    ForbiddenPathError,
    InvalidFieldValueError,
    InvalidMediaError,
    MissingFileError,
)
from safelight.media.images import decode_still
from safelight.media.layers import on_white
from safelight.store.artifact import EXTENSIONS
from safelight.store.disk import disk_errors
from safelight.store.store import current_store
from safelight.weights.safety import check_weights

FORM = "safelight character 1"
RECORD = "character.json"
MOST_VERSIONS = 100
CHUNK = 1 << 20
LARGEST_RECORD, LARGEST_PICTURE, LARGEST_LORA = 4 << 20, 256 << 20, 8 << 30
"""Bytes."""
_PICTURE = re.compile(r"pictures/([0-9a-f]{64})\.([a-z]{3,4})")
_LORA = re.compile(r"loras/v([1-9][0-9]{0,5})\.(safetensors|json)")
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Of all members: the same character is the same file."""


class _Packed(BaseModel):
    """What `character.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: str
    character: Character


def export_character(named: str, target: Path) -> Character:
    """Write a character into a new file.

    Raises:
        MissingFileError: there is no such character, or one of its files is gone.
        InvalidFieldValueError: there is something at `target`.
    """
    character = find(named)
    if target.exists():
        raise InvalidFieldValueError(f"{target} exists", "name a new file")
    record("character.exported", character.id)
    store = current_store()
    packed = _Packed(form=FORM, character=character)
    with disk_errors(target), zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as archive:
        _write(archive, RECORD, packed.model_dump_json(indent=2).encode())
        for picture in character.pictures:
            end = EXTENSIONS[picture.media_type]
            content = store.read(character.ref(picture))
            _write(archive, f"pictures/{picture.sha256}{end}", content)
        for version in list_versions(character.id):
            stem = f"loras/v{version.version}"
            _write(archive, f"{stem}.safetensors", store.read(version.ref))
            _write(archive, f"{stem}.json", version.model_dump_json(indent=2).encode())
    return character


def import_character(source: Path) -> Character:
    """Take a character from a file; everything in it is looked into first.

    Raises:
        MissingFileError: there is no such file, or it lacks one of its own.
        InvalidMediaError: it is no such file, or damaged, or too large.
        ForbiddenPathError: it holds a name that has no place in it.
        ChecksumMismatchError: a picture or LoRA is not what its name says.
        ConsentMissingError: the character was deleted here because somebody asked for it.
        InvalidFieldValueError: it is here already, or another one has its name.
    """
    if not source.is_file():
        raise MissingFileError(f"there is no file {source}", "correct the path")
    try:
        with disk_errors(source), zipfile.ZipFile(source) as archive:
            members = _members(archive, source.name)
            character = _record(archive, members, source.name)
            _require_new(character)
            with TemporaryDirectory() as folder:
                taken = _taken(archive, members, character, Path(folder))
            record("character.imported", taken.id)
            return taken
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InvalidMediaError(
            f"{source.name} is no exported character: {str(error)[:200]}", "export it again"
        ) from error


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EARLIEST)
    entry.external_attr = 0o600 << 16
    archive.writestr(entry, content)


def _members(archive: zipfile.ZipFile, title: str) -> Mapping[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    entries = archive.infolist()
    if len(entries) > 1 + MOST_PICTURES + 2 * MOST_VERSIONS:
        raise InvalidMediaError(f"{title} holds {len(entries)} files", "export it again")
    for entry in entries:
        name = entry.filename
        lora = _LORA.fullmatch(name)
        if name != RECORD and lora is None and _PICTURE.fullmatch(name) is None:
            raise ForbiddenPathError(
                f"{title} holds {name[:120]!r}, which has no place in an exported character",
                "export it again",
            )
        if name in found:
            raise InvalidMediaError(f"{title} holds {name} twice", "export it again")
        most = LARGEST_PICTURE if name.startswith("pictures/") else LARGEST_RECORD
        if lora is not None and lora[2] == "safetensors":
            most = LARGEST_LORA
        if entry.file_size > most:
            raise InvalidMediaError(
                f"{name} of {title} has {entry.file_size} bytes, at most {most} are taken",
                "export it again",
            )
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise InvalidMediaError(
                f"{name} of {title} is packed or encrypted, expected files as they are",
                "export it again",
            )
        found[name] = entry
    return found


def _record(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], title: str
) -> Character:
    if RECORD not in members:
        raise InvalidMediaError(f"{title} holds no {RECORD}", "export it again")
    try:
        packed = _Packed.model_validate_json(archive.read(members[RECORD]))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidMediaError(
            f"{RECORD} of {title} does not read as expected: {where}: {first['msg']}",
            "export it again",
        ) from error
    if packed.form != FORM:
        raise InvalidMediaError(
            f"{title} is {packed.form[:80]!r}, expected {FORM!r}", "export it again"
        )
    return packed.character


def _require_new(character: Character) -> None:
    backend = current_store().backend
    if backend.exists(tombstone_key(character.id)):
        raise ConsentMissingError(
            f"character {character.id} was deleted here because somebody asked for it",
            "ask the person, then make a new character",
        )
    if backend.exists(record_key(character.id)):
        raise InvalidFieldValueError(
            f"character {character.id} is here already", "delete it first, or keep it as it is"
        )
    if any(one.name == character.name for one in list_all()):
        raise InvalidFieldValueError(
            f"there is another character {character.name!r}", "rename that one first"
        )
    lacking = [one.sha256[:12] for one in character.pictures if one.consent is None]
    if character.kind == "person" and (character.consent is None or lacking):
        raise ConsentMissingError(
            f"character {character.id} is a person, and the file holds no consent"
            + (f" to pictures {', '.join(lacking)}" if lacking else ""),
            "ask the person, and export it with the consent",
        )


def _taken(
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    character: Character,
    folder: Path,
) -> Character:
    """All files looked into and kept; the record last, so that half a character is none."""
    versions = _versions(archive, members, character, folder)
    pictures = [
        (picture, _picture(archive, members, picture, folder)) for picture in character.pictures
    ]
    backend = current_store().backend
    for picture, content in pictures:
        backend.write(
            picture_key(character.id, picture), content, picture.media_type, picture.sha256
        )
    for version, file in versions:
        backend.write(file_key(character.id, version.version), file, TENSORS, version.sha256)
        text = version.model_dump_json(indent=2).encode()
        backend.write(config_key(character.id, version.version), text, "application/json")
    return save(character.model_copy(update={"updated": now()}))


def _picture(
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    picture: CharacterPicture,
    folder: Path,
) -> bytes:
    name = f"pictures/{picture.sha256}{EXTENSIONS.get(picture.media_type, '.bin')}"
    content = _content(archive, members, name, picture.sha256)
    file = folder / "picture"
    file.write_bytes(content)
    if picture_bytes(file)[0] != content:
        raise InvalidMediaError(f"{name} is no picture as it is kept here", "export it again")
    pixels = on_white(decode_still(content).pixels)
    if (pixels.shape[1], pixels.shape[0], likeness(pixels)) != (
        picture.width,
        picture.height,
        picture.likeness,
    ):
        raise InvalidMediaError(
            f"{name} is not the picture that {RECORD} describes", "export it again"
        )
    return content


def _versions(
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    character: Character,
    folder: Path,
) -> list[tuple[LoraVersion, Path]]:
    found: list[tuple[LoraVersion, Path]] = []
    for name in members:
        matched = _LORA.fullmatch(name)
        if matched is None or matched[2] != "json":
            continue
        number = int(matched[1])
        version = LoraVersion.model_validate_json(archive.read(members[name]))
        if (version.name, version.version) != (character.id, number):
            raise InvalidMediaError(
                f"{name} is of {version.name[:80]} v{version.version}", "export it again"
            )
        version = version.model_copy(update={"key": file_key(character.id, number)})
        file = folder / f"v{number}.safetensors"
        _unpacked(archive, members, f"loras/v{number}.safetensors", version.sha256, file)
        check_weights(file)
        found.append((version, file))
    return found


def _content(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str, sha256: str
) -> bytes:
    if name not in members:
        raise MissingFileError(f"the file lacks {name}", "export it again")
    content = archive.read(members[name])
    _require_digest(hashlib.sha256(content).hexdigest(), sha256, name)
    return content


def _unpacked(
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    name: str,
    sha256: str,
    target: Path,
) -> None:
    """The same into a file, for what may be larger than memory."""
    if name not in members:
        raise MissingFileError(f"the file lacks {name}", "export it again")
    digest = hashlib.sha256()
    with archive.open(members[name]) as source, disk_errors(target), target.open("wb") as file:
        while part := source.read(CHUNK):
            digest.update(part)
            file.write(part)
    _require_digest(digest.hexdigest(), sha256, name)


def _require_digest(found: str, wanted: str, name: str) -> None:
    if found != wanted:
        raise ChecksumMismatchError(
            f"{name} has sha256 {found[:12]}, expected {wanted[:12]}", "export it again"
        )

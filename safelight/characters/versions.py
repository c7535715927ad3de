"""LoRAs that were trained here: v1, v2, ... of a name, kept in the store for every machine."""

import os
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

from safelight.digests import sha256_of
from safelight.errors import InvalidFieldValueError, MissingFileError
from safelight.private import make_folder
from safelight.store.artifact import ArtifactRef
from safelight.store.disk import disk_errors, half_made
from safelight.store.store import SCHEME, Store, current_store
from safelight.weights.places import models_folder
from safelight.weights.registry import registry

PREFIX = "loras"
"""Of the store's keys."""
TENSORS = "application/vnd.safetensors"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"v([1-9][0-9]{0,5})")
_CLAIM = re.compile(rf"{_VERSION.pattern}\.claim")


class LoraVersion(BaseModel):
    """One finished training of a name."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """What was trained."""
    version: int
    """From 1."""
    sha256: str
    """Of the file."""
    bytes: int
    """Its size."""
    key: str
    """Where the store has it."""
    config: dict[str, JsonValue]
    """Everything that it was trained with; `training_config.json`."""

    @property
    def model(self) -> str:
        """Its name among the LoRAs of the models folder."""
        return model_name(self.name, self.version)

    @property
    def ref(self) -> ArtifactRef:
        """The file as stages have it."""
        return ArtifactRef(
            uri=SCHEME + self.key, sha256=self.sha256, media_type=TENSORS, bytes=self.bytes
        )


def checked_name(name: str, what: str = "name") -> str:
    """A name that can stand in keys, files and prompts.

    Raises:
        InvalidFieldValueError: it cannot.
    """
    if _NAME.fullmatch(name):
        return name
    raise InvalidFieldValueError(
        f"{what} is {name[:80]!r}, expected up to 64 small letters, digits, - and _",
        f"correct {what}",
    )


def model_name(name: str, version: int) -> str:
    """What the LoRA of a version is called in the models folder."""
    return f"{name}-v{version}"


def file_key(name: str, version: int) -> str:
    """Where the file of a version lies."""
    return f"{PREFIX}/{checked_name(name)}/v{version}.safetensors"


def config_key(name: str, version: int) -> str:
    """Where its `training_config.json` lies."""
    return f"{PREFIX}/{checked_name(name)}/v{version}/training_config.json"


def claimed(name: str, run: str) -> int:
    """The version that a run trains: the same at each try of the run.

    Args:
        name: what is trained.
        run: its id.
    """
    backend = current_store().backend
    prefix = f"{PREFIX}/{checked_name(name)}/"
    taken = [0]
    for key in backend.list(prefix):
        first = key.removeprefix(prefix).partition("/")[0]
        claim = _CLAIM.fullmatch(first)
        if claim is not None and backend.read(key).decode() == run:
            return int(claim[1])
        found = _VERSION.match(first)
        taken.append(int(found[1]) if found else 0)
    version = max(taken) + 1
    backend.write(f"{prefix}v{version}.claim", run.encode(), "text/plain")
    return version


def keep(name: str, version: int, made: ArtifactRef, config: dict[str, JsonValue]) -> LoraVersion:
    """Enter a finished training, the file first: who finds the config finds the file.

    Args:
        name: what was trained.
        version: as `claimed` gave it.
        made: the LoRA file.
        config: what it was trained with.
    """
    store = current_store()
    store.settle()
    key = file_key(name, version)
    store.backend.write(key, store.fetch(made), TENSORS, made.sha256)
    kept = LoraVersion(
        name=name, version=version, sha256=made.sha256, bytes=made.bytes, key=key, config=config
    )
    store.backend.write(
        config_key(name, version), kept.model_dump_json(indent=2).encode(), "application/json"
    )
    store.backend.delete(f"{PREFIX}/{name}/v{version}.claim")
    return kept


def list_versions(name: str, store: Store | None = None) -> list[LoraVersion]:
    """All finished trainings of a name, the oldest first."""
    backend = (store or current_store()).backend
    keys = backend.list(f"{PREFIX}/{checked_name(name)}/")
    found = [
        LoraVersion.model_validate_json(backend.read(key))
        for key in keys
        if key.endswith("/training_config.json")
    ]
    return sorted(found, key=lambda one: one.version)


def find_version(name: str, version: int | None = None) -> LoraVersion:
    """One of them; None is the last.

    Raises:
        MissingFileError: there is none.
    """
    there = list_versions(name)
    chosen = [one for one in there if version in (None, one.version)]
    if not chosen:
        listed = ", ".join(f"v{one.version}" for one in there) or "none"
        raise MissingFileError(
            f"there is no {'version' if version is None else f'v{version}'} of {name}; there are "
            f"{listed}",
            "train it first, or name a version that is there",
        )
    return chosen[-1]


def install(version: LoraVersion) -> Path:
    """Have a version among the LoRAs of this machine, also where another one trained it.

    Returns:
        Its file.

    Raises:
        ChecksumMismatchError: the store's bytes are damaged.
        InvalidFieldValueError: another file of this name lies there.
    """
    target = models_folder() / "loras" / f"{version.model}.safetensors"
    known = registry()
    there = sha256_of(target) if target.is_file() else None
    if there not in (None, version.sha256):
        raise InvalidFieldValueError(
            f"{target.name} in the models folder is another file than {version.name} "
            f"v{version.version}: sha256 {str(there)[:12]}, expected {version.sha256[:12]}",
            f"move {target} away",
        )
    if there is None:
        content = current_store().read(version.ref)
        with disk_errors(target):
            make_folder(target.parent)
            with half_made(target.parent) as half:
                half.write_bytes(content)
                os.replace(half, target)
    config = version.config
    trigger = config.get("trigger")
    known.register_model(
        target,
        "lora",
        description=f"Trained here: {version.name} v{version.version}",
        tags=("trained",),
        metadata={"trigger_words": [trigger]} if trigger else None,
    )
    known.hashed(target, version.sha256)
    return target


def uninstall(name: str) -> list[Path]:
    """Remove all LoRAs of a name from this machine's models folder and registry."""
    folder = models_folder() / "loras"
    known = registry()
    removed: list[Path] = []
    for path in sorted(folder.glob(f"{checked_name(name)}-v*.safetensors")):
        if not re.fullmatch(rf"{re.escape(name)}-v[0-9]+", path.stem):
            continue
        for info in known.list_named(path.stem, "lora"):
            if info.file_path == path.resolve():
                known.remove_model(info.name, "lora")
        path.unlink(missing_ok=True)
        removed.append(path)
    return removed

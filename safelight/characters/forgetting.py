"""A character deleted with all that came of it; what is left says who asked, and nothing else."""

import json
from collections.abc import Iterable

from safelight.account import person
from safelight.audit.log import record
from safelight.characters.keeping import find, now
from safelight.characters.records import PREFIX, Character, Tombstone, record_key, tombstone_key
from safelight.characters.versions import PREFIX as LORAS
from safelight.characters.versions import list_versions, uninstall
from safelight.provenance.manifest import Manifest
from safelight.store.store import current_store, key_of

FOLDERS = ("uploads/", "outputs/", "cache/", "manifests/", f"{PREFIX}/", f"{LORAS}/")
"""Where the store keeps what may have come of a character."""
RECORDS = (".json",)
MARK = "flow_run_id"
BESIDE = "about.json"
"""Of the checkpoints of a training."""


def delete(named: str, *, by: str | None = None, reason: str = "") -> Tombstone:
    """Remove a character: its pictures and LoRAs, every copy of them, what was made of them.

    All manifests of runs that used one of its files are read, and what those runs made goes too,
    and so on, since it shows the character.

    Args:
        named: name or id.
        by: who asked for it; None is the account of this process.
        reason: in their words.

    Raises:
        MissingFileError: there is no such character.
    """
    character = find(named)
    versions = list_versions(character.id)
    traces = _traces(character, versions_artifacts=[v.config.get("artifacts") for v in versions])
    traces |= {version.sha256 for version in versions}
    backend = current_store().backend
    keys = [key for folder in FOLDERS for key in backend.list(folder)]
    doomed = _spread(traces, character, keys)
    told = Tombstone(
        id=character.id,
        by=by or person(),
        when=now(),
        reason=reason,
        pictures=len(character.pictures),
        loras=len(versions),
        files=len(doomed),
    )
    record("character.deleted", character.id, {"by": told.by, "files": told.files})
    # said first: who dies half way is asked again, and finds what is left by the record
    backend.write(
        tombstone_key(character.id), told.model_dump_json(indent=2).encode(), "application/json"
    )
    for key in doomed:
        backend.delete(key)
    _clear_scratch(doomed)
    uninstall(character.id)
    backend.delete(record_key(character.id))
    return told


def _clear_scratch(doomed: Iterable[str]) -> None:
    """Copies that this machine has fetched from a bucket."""
    digests = {_digest(key) for key in doomed} - {""}
    scratch = current_store().scratch
    for path in scratch.iterdir() if scratch.is_dir() else ():
        if path.name.partition(".")[0] in digests:
            path.unlink(missing_ok=True)


def tombstones() -> list[Tombstone]:
    """All of them, the oldest first."""
    backend = current_store().backend
    keys = [key for key in backend.list(f"{PREFIX}/") if key.endswith(".deleted.json")]
    found = [Tombstone.model_validate_json(backend.read(key)) for key in keys]
    return sorted(found, key=lambda one: (one.when, one.id))


def _traces(character: Character, versions_artifacts: Iterable[object]) -> set[str]:
    found = {picture.sha256 for picture in character.pictures}
    for uris in versions_artifacts:
        if isinstance(uris, list):
            found |= {_digest(str(uri)) for uri in uris}
    return found - {""}


def _digest(uri: str) -> str:
    stem = uri.rpartition("/")[2].partition(".")[0]
    return stem if len(stem) == 64 else ""


def _spread(traces: set[str], character: Character, keys: list[str]) -> list[str]:
    """Keys of all that names one of the traces, or was made by a run that does."""
    backend = current_store().backend
    character_id = character.id
    called = json.dumps(character.name, ensure_ascii=False)
    asked = {f'"character":{space}{called}'.encode() for space in ("", " ")}
    kept = {record_key(character_id), tombstone_key(character_id)}
    texts = {
        key: backend.read(key)
        for key in keys
        if key not in kept and (key.endswith(RECORDS) or key.startswith("cache/results/"))
    }
    known = set(traces)
    while True:
        marks = [*asked, *(mark.encode() for mark in (*known, character_id))]
        named = [key for key, text in texts.items() if any(mark in text for mark in marks)]
        more = {digest for key in named for digest in _made(texts[key])} - known
        if not more:
            break
        known |= more
    inside = f"/{character_id}/"
    # checkpoints are called by their steps; what they are of stands beside them
    folders = tuple(key.removesuffix(BESIDE) for key in named if key.endswith(f"/{BESIDE}"))
    return [
        key
        for key in keys
        if key not in kept
        and (
            key in named
            or inside in key
            or key.startswith(folders)
            or any(mark in key for mark in known)
        )
    ]


def _made(text: bytes) -> set[str]:
    """sha256 of what the run of a manifest made; nothing of other records."""
    if MARK.encode() not in text:
        return set()
    try:
        manifest = Manifest.model_validate_json(text)
    except ValueError:
        return set()
    made = [*manifest.results, *(ref for entry in manifest.stages for ref in entry.results)]
    return {ref.sha256 for ref in made if key_of(ref)}

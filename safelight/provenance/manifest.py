"""The manifest of a run: everything needed to know what happened and to make it again."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from safelight.digests import sha256_of
from safelight.errors import InvalidFieldValueError, MissingFileError, PipelineError
from safelight.installed import version
from safelight.prompts.unfolded import Unfolded
from safelight.provenance.charges import Charge, total
from safelight.provenance.consent import ConsentRecord
from safelight.provenance.embed import read_record
from safelight.provenance.identity import EngineIdentity, PassedOver
from safelight.provenance.record import Origin
from safelight.provenance.usage import GPUS, Usage, note_usage
from safelight.store.artifact import ArtifactRef
from safelight.store.store import SCHEME, Store, current_store

MANIFESTS = "outputs/manifests/"
BY_ARTIFACT = MANIFESTS + "by-artifact/"
SCHEMA_VERSION = 1
LARGEST_MANIFEST = 64 * 2**20
"""Bytes; a larger JSON file is not one of ours."""
Status = Literal["done", "cached", "failed", "cancelled"]


class ManifestUnreadableError(InvalidFieldValueError):
    """A file that was named as a manifest is not one that this version reads."""


class UnknownArtifactError(MissingFileError):
    """No run that this store knows made the file."""


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Failure(_Frozen):
    """An error as people and programs read it."""

    code: str
    """Stable name of the cause."""
    problem: str
    """What was found and what was expected."""
    remedy: str
    """What to do next."""

    @classmethod
    def of(cls, error: PipelineError) -> Self:
        """The failure that an error describes."""
        return cls(code=error.code, problem=error.problem, remedy=error.remedy)


class StageEntry(_Frozen):
    """One stage of a run."""

    name: str
    """What the pipeline calls it."""
    stage_type: str
    """Name of the stage."""
    status: Status
    """How it ended; cached means that an earlier run's result was taken."""
    parameters: dict[str, JsonValue]
    """Its parameters, defaults included."""
    sources: tuple[str, ...] = ()
    """sha256 of what it read."""
    results: tuple[ArtifactRef, ...] = ()
    """What it made."""
    engine: EngineIdentity
    """The engine that did the work, with its weights and device class."""
    passed_over: tuple[PassedOver, ...] = ()
    """Engines that were preferred to it, and why they did not serve."""
    origin: Origin | None = None
    """What the stage does to pixels; None in manifests of earlier versions."""
    seconds: float = Field(default=0.0, ge=0)
    """Wall time; of the run that did the work when the result was cached."""
    peak_bytes: int = Field(default=0, ge=0)
    """Highest resident memory."""
    gpu_peak_bytes: int = Field(default=0, ge=0)
    """Highest memory on the device."""
    notes: tuple[str, ...] = ()
    """Remarks, for instance that tiles had to be made smaller."""
    licences: tuple[str, ...] = ()
    """What is to be known of the licences of its weights: which are not known, or forbid
    commercial use; empty in manifests of earlier versions."""
    charges: tuple[Charge, ...] = ()
    """What its calls to providers cost; empty in manifests of earlier versions."""
    error: Failure | None = None
    """Why it failed."""


def _spent(data: dict[str, Any]) -> float:
    stages = cast("tuple[StageEntry, ...]", data.get("stages", ()))
    return total(charge for entry in stages for charge in entry.charges)


def _drawn_seeds(data: dict[str, Any]) -> dict[str, int]:
    stages = cast("tuple[StageEntry, ...]", data.get("stages", ()))
    seeds = ((entry.name, entry.parameters.get("seed")) for entry in stages)
    return {name: seed for name, seed in seeds if isinstance(seed, int)}


def _called_quality(data: dict[str, Any]) -> str | None:
    quality = cast("dict[str, JsonValue]", data.get("parameters", {})).get("quality")
    return quality if isinstance(quality, str) else None


class Manifest(_Frozen):
    """One run. Times stand here and nowhere inside the files that the run made."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Raised when an older reader would misunderstand the rest."""
    flow: str
    """Name of the flow."""
    flow_run_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
    """Prefect's id of the run."""
    parameters: dict[str, JsonValue]
    """As the flow was called, with the seed that was drawn when none was given."""
    unfolded: tuple[Unfolded, ...] = ()
    """Prompts that held choices, with the words that were drawn for them; empty in manifests of
    earlier versions."""
    inputs: dict[str, ArtifactRef] = Field(default_factory=dict[str, ArtifactRef])
    """Media it was given, by the name of the parameter."""
    consent: ConsentRecord | None = None
    """To the use of a person's likeness; None where none was needed, and in manifests of earlier
    versions."""
    stages: tuple[StageEntry, ...] = ()
    """In the order they finished."""
    results: tuple[ArtifactRef, ...] = ()
    """What the flow gives, in the order of its declaration; empty where it did not come to its end,
    and in manifests of earlier versions."""
    asked_by: str = ""
    """Id of the key by which the gateway was asked for it; empty for none, and in manifests of
    earlier versions."""
    schedule: str = ""
    """Of Prefect, that made the run; empty for none, and in manifests of earlier versions."""
    part_of: str = ""
    """Id of the run whose manifest lists its stages too; empty for none, and in manifests of
    earlier versions."""
    seeds: dict[str, int] = Field(default_factory=_drawn_seeds)
    """Seed of each stage that draws noise, by the stage's name."""
    quality: str | None = Field(default_factory=_called_quality)
    """Quality level, for presets that have one."""
    cost_usd: float = Field(default_factory=_spent, ge=0)
    """What the calls of all stages to providers cost together."""
    versions: dict[str, str]
    """Of Python and of the packages that take part."""
    device_class: str
    """`cpu`, `mps` or `cuda`."""
    device_name: str
    """What the device calls itself."""
    started: str
    """ISO 8601 with its offset."""
    ended: str
    """ISO 8601 with its offset."""
    waited_seconds: float = 0.0
    """Of the time between them, what others worked that were drawn together with it."""
    success: bool
    """Whether the flow came to its end."""
    error: Failure | None = None
    """Why it did not."""

    @field_validator("started", "ended")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError(f"{value!r} has no offset; add +00:00 or another")
        return value

    @model_validator(mode="after")
    def _no_error_with_success(self) -> Self:
        if self.success and self.error is not None:
            raise ValueError(f"success is true and there is an error, {self.error.code}")
        return self

    @property
    def artifacts(self) -> tuple[ArtifactRef, ...]:
        """Everything the stages made, each once, in order."""
        made = {ref.sha256: ref for entry in self.stages for ref in entry.results}
        return tuple(made.values())

    @property
    def gpu_seconds(self) -> float:
        """How long its stages worked on a GPU; what came from the cache took none."""
        worked = (
            entry.seconds
            for entry in self.stages
            if entry.status == "done" and entry.engine.device_class in GPUS
        )
        return round(sum(worked), 3)

    @property
    def shown(self) -> tuple[ArtifactRef, ...]:
        """What people look at: the results, or what the last stage that made something made."""
        last = next((entry.results for entry in reversed(self.stages) if entry.results), ())
        return tuple({ref.sha256: ref for ref in self.results or last}.values())

    @property
    def key(self) -> str:
        """Where the store keeps it."""
        return f"{MANIFESTS}{self.flow_run_id}.json"


class RunResult(_Frozen):
    """What a flow answers: everything that was made, also when a later stage failed."""

    success: bool
    """Whether the flow came to its end."""
    data: dict[str, JsonValue]
    """Flow, run, quality, seeds and the key of the manifest."""
    artifacts: tuple[ArtifactRef, ...] = ()
    """Everything the stages made, each once, in the order that stages ended."""
    results: tuple[ArtifactRef, ...] = ()
    """What the flow gives, in the order of its declaration."""
    metadata: dict[str, dict[str, JsonValue]] = Field(
        default_factory=dict[str, dict[str, JsonValue]]
    )
    """Status, seconds, memory, engine and results of each stage, by its name."""
    error: Failure | None = None
    """Why it did not."""

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The view of a manifest that callers get."""
        data: dict[str, JsonValue] = {
            "flow": manifest.flow,
            "flow_run_id": manifest.flow_run_id,
            "quality": manifest.quality,
            "seeds": dict(manifest.seeds),
            "manifest": SCHEME + manifest.key,
        }
        if manifest.cost_usd:
            data["cost_usd"] = manifest.cost_usd
        if manifest.unfolded:
            data["prompts"] = {one.field: one.text for one in manifest.unfolded}
        return cls(
            success=manifest.success,
            data=data,
            artifacts=manifest.artifacts,
            results=manifest.results,
            metadata=dict(_stage_metadata(manifest)),
            error=manifest.error,
        )


class _MadeBy(_Frozen):
    """The small record that leads from an artifact to its manifest."""

    sha256: str
    manifest: str
    success: bool


def keep_manifest(store: Store, manifest: Manifest) -> str:
    """Store a manifest and, for each artifact it made, a record that leads back to it.

    An artifact keeps leading to the first run that made it and came to its end.

    Returns:
        The key of the manifest.
    """
    text = manifest.model_dump_json(indent=2)
    store.write_record(manifest.key, text.encode())
    for ref in manifest.artifacts:
        if _leads_elsewhere(store, ref.sha256, manifest):
            continue
        made_by = _MadeBy(sha256=ref.sha256, manifest=manifest.key, success=manifest.success)
        store.write_record(_index_key(ref.sha256), made_by.model_dump_json().encode())
    if manifest.asked_by and not manifest.part_of:
        day = f"{datetime.fromisoformat(manifest.ended).astimezone(UTC):%Y-%m-%d}"
        used = Usage(manifest.gpu_seconds, manifest.cost_usd)
        note_usage(store, manifest.asked_by, day, manifest.flow_run_id, used)
    return manifest.key


def load_manifest(location: str | Path, store: Store | None = None) -> Manifest:
    """The manifest of a run, found by whatever names the run.

    Args:
        location: a manifest file, a manifest's key or `store:` link, a flow run id, the sha256 or
            `store:` link of an artifact, or a picture or video that a run made.
        store: where keys and artifacts are looked up; None is the current one.

    Raises:
        ManifestUnreadableError: JSON, but not a manifest that this version reads.
        UnknownArtifactError: a file that no run in the store made.
        MissingFileError: nothing of that name anywhere.
    """
    store = store or current_store()
    path = Path(location)
    try:
        there = path.is_file()
    except OSError:  # longer than names of files are
        there = False
    if there:
        return _from_file(path, store)
    name = str(location).removeprefix(SCHEME)
    if name.startswith(MANIFESTS):
        return _parsed(store.read_record(name), name)
    digest = re.fullmatch(r"(?:outputs/[0-9a-f]{2}/)?([0-9a-f]{64})(?:\.\w+)?", name)
    if digest:
        return _by_artifact(store, digest[1], name)
    if re.fullmatch(r"[0-9a-fA-F-]{36}", name):
        return _parsed(store.read_record(f"{MANIFESTS}{name}.json"), name)
    raise MissingFileError(
        f"{name[:200]} is no file, no key under {MANIFESTS}, no flow run id and no artifact",
        "name a manifest, or a picture or video that a run made",
    )


def _from_file(path: Path, store: Store) -> Manifest:
    with path.open("rb") as file:
        start = file.read(64)
    if not start.lstrip().startswith(b"{"):
        return _by_artifact(store, sha256_of(path), path.name, path)
    size = path.stat().st_size
    if size > LARGEST_MANIFEST:
        raise ManifestUnreadableError(
            f"{path.name} has {size} bytes, a manifest at most {LARGEST_MANIFEST}",
            "name a manifest",
        )
    return _parsed(path.read_bytes(), path.name)


def _parsed(data: bytes, name: str) -> Manifest:
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        where = f"field {field}" if field else "the whole file"
        raise ManifestUnreadableError(
            f"{name} is not a manifest of schema {SCHEMA_VERSION}: {where}: {first['msg']}",
            f"name a file from {MANIFESTS} that Safelight {version('safelight')} reads",
        ) from error


def _by_artifact(store: Store, sha256: str, name: str, path: Path | None = None) -> Manifest:
    made_by = _made_by(store, sha256)
    if made_by is None or not store.backend.exists(made_by.manifest):
        record = read_record(path) if path else None
        said = f"; the file says that {record.stage} made it" if record else ""
        raise UnknownArtifactError(
            f"no run in this store made {name} (sha256 {sha256[:12]}...){said}",
            "name its manifest, or set VOLUME_ROOT or SAFELIGHT_STORE to the store it came from",
        )
    return _parsed(store.read_record(made_by.manifest), made_by.manifest)


def _leads_elsewhere(store: Store, sha256: str, manifest: Manifest) -> bool:
    made_by = _made_by(store, sha256)
    if made_by is None or made_by.manifest == manifest.key:
        return False
    if manifest.success and not made_by.success:
        return False
    return store.backend.exists(made_by.manifest)


def _made_by(store: Store, sha256: str) -> _MadeBy | None:
    try:
        return _MadeBy.model_validate_json(store.read_record(_index_key(sha256)))
    except (MissingFileError, ValidationError):  # a damaged one is written again by the next run
        return None


def _index_key(sha256: str) -> str:
    return f"{BY_ARTIFACT}{sha256}.json"


def _stage_metadata(manifest: Manifest) -> Iterator[tuple[str, dict[str, JsonValue]]]:
    seen: dict[str, int] = {}
    for entry in manifest.stages:
        times = seen[entry.name] = seen.get(entry.name, 0) + 1
        facts = entry.model_dump(mode="json", exclude={"name", "results"})
        facts["results"] = [ref.uri for ref in entry.results]
        yield entry.name if times == 1 else f"{entry.name} {times}", facts

"""Finds what to run again, and compares what came out with what there was."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, JsonValue

from safelight.errors import InvalidMediaError, MissingFileError
from safelight.media.animation import frames_of
from safelight.media.images import decode_still
from safelight.media.video.stream import read_frames
from safelight.pixels import Pixels
from safelight.prompts.again import with_same_words
from safelight.provenance.manifest import (
    Manifest,
    ManifestUnreadableError,
    load_manifest,
)
from safelight.provenance.surroundings import ONE_OF_MANY, versions
from safelight.store.artifact import ArtifactRef
from safelight.store.store import SCHEME, Store, current_store

RENAMED = {"consent": "consent_given"}
"""Parameters by the names that they had in manifests of before."""


@dataclass(frozen=True)
class Rerun:
    """What makes a run again."""

    flow: str
    """Name of the flow."""
    parameters: dict[str, JsonValue]
    """What to call it with; media are links to the stored inputs, not the paths of that time."""
    manifest: Manifest
    """The run it repeats."""
    notes: tuple[str, ...]
    """Reasons for which the result may differ; empty when it has to be the same."""


class ArtifactComparison(BaseModel):
    """One artifact of a run beside the one of its repetition."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    stage: str
    """Name of the stage that made it."""
    position: int
    """Its place among the results of that stage, from 0."""
    before: str | None
    """sha256 in the first run; None when that made nothing here."""
    after: str | None
    """sha256 in the second run; None when that made nothing here."""
    equal: bool
    """Whether the files are the same, byte for byte."""
    max_difference: int | None = None
    """Largest difference of any colour value in 8-bit levels; None when it cannot be told."""
    note: str = ""
    """Why it cannot be told."""


class Comparison(BaseModel):
    """Two runs side by side."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    same_device_class: bool
    """Only then are equal bytes promised."""
    artifacts: tuple[ArtifactComparison, ...]
    """Every result of every stage, in order."""
    notes: tuple[str, ...] = ()
    """How the circumstances of the runs differ."""

    @property
    def identical(self) -> bool:
        """Whether both runs made the same files, and any at all."""
        return bool(self.artifacts) and all(item.equal for item in self.artifacts)

    @property
    def max_difference(self) -> int | None:
        """Largest difference over all artifacts, in 8-bit levels; None when one is unknown."""
        differences = [item.max_difference for item in self.artifacts]
        known = [difference for difference in differences if difference is not None]
        return max(known) if known and len(known) == len(differences) else None


def find_run(
    location: str | Path, store: Store | None = None, device_class: str | None = None
) -> Rerun:
    """The flow and parameters that make a run again.

    Args:
        location: a manifest, its key, a flow run id, or a file that the run made; see
            `load_manifest`.
        store: where to look; None is the current one.
        device_class: where the repetition will run, for the notes; None leaves that out.

    Raises:
        ManifestUnreadableError: JSON, but not a manifest that this version reads.
        UnknownArtifactError: a file that no run in the store made.
        MissingFileError: nothing of that name, or an input that is no longer stored.
    """
    store = store or current_store()
    manifest = load_manifest(location, store)
    if not manifest.flow.isidentifier():  # it becomes the name of a module below flows
        raise ManifestUnreadableError(
            f"the manifest names the flow {manifest.flow[:80]!r}, expected the name of a flow",
            "pass a manifest that a run of Safelight left",
        )
    for name, ref in manifest.inputs.items():
        if not store.backend.exists(ref.uri.removeprefix(SCHEME)):
            raise MissingFileError(
                f"input {name} of run {manifest.flow_run_id} is no longer stored at {ref.uri}",
                f"put a file with sha256 {ref.sha256} back into the store",
            )
    notes = [*version_differences(manifest.versions, versions())]
    if device_class is not None and device_class != manifest.device_class:
        notes.append(
            f"the run used {manifest.device_class}, this machine {device_class}: "
            "pixels may differ by a few levels"
        )
    stored: dict[str, JsonValue] = {name: ref.uri for name, ref in manifest.inputs.items()}
    named = {RENAMED.get(name, name): value for name, value in manifest.parameters.items()}
    parameters, changed = with_same_words(
        named, manifest.unfolded, knew="unfolded" in manifest.model_fields_set
    )
    notes += [
        f"{name} unfolds to other words than it did: those of then are drawn, and the file has "
        "them alone"
        for name in changed
    ]
    notes += [
        f"{entry.name} was {note}, and is drawn alone now: the last bits may differ"
        for entry in manifest.stages
        for note in entry.notes
        if note.startswith(ONE_OF_MANY)
    ]
    return Rerun(manifest.flow, _given(parameters, stored), manifest, tuple(notes))


def version_differences(before: dict[str, str], after: dict[str, str]) -> tuple[str, ...]:
    """One sentence for each package whose version is not what it was."""
    return tuple(
        f"{name} was {before.get(name, 'not installed')}, is {after.get(name, 'not installed')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def compare(before: Manifest, after: Manifest, store: Store | None = None) -> Comparison:
    """Set the results of two runs side by side, and measure those that are not the same.

    Args:
        before: the run that was repeated.
        after: its repetition.
        store: where the artifacts lie; None is the current one.
    """
    store = store or current_store()
    notes = list(version_differences(before.versions, after.versions))
    if before.device_class != after.device_class:
        notes.append(
            f"device was {before.device_class} ({before.device_name}), "
            f"is {after.device_class} ({after.device_name})"
        )
    notes.extend(_other_weights(before, after))
    return Comparison(
        same_device_class=before.device_class == after.device_class,
        artifacts=tuple(
            _compared(stage, position, old, new, store)
            for stage, position, old, new in _paired(before, after)
        ),
        notes=tuple(notes),
    )


def _other_weights(before: Manifest, after: Manifest) -> Iterator[str]:
    """One sentence for each stage whose model has the same name and other bytes."""
    again = {entry.name: entry.engine for entry in after.stages}
    for entry in before.stages:
        engine = again.get(entry.name, entry.engine)
        if engine.weights != entry.engine.weights:
            gone = [sha for sha in entry.engine.weights if sha not in engine.weights]
            came = [sha for sha in engine.weights if sha not in entry.engine.weights]
            yield (
                f"stage {entry.name} used weights sha256 {', '.join(gone) or 'fewer'}, "
                f"now {', '.join(came) or 'without them'}"
            )


def _paired(
    before: Manifest, after: Manifest
) -> Iterator[tuple[str, int, ArtifactRef | None, ArtifactRef | None]]:
    """The results of both runs by stage and position.

    Parallel branches finish in any order, so stages are matched by name.
    """
    old, new = _places(before), _places(after)
    for place in dict.fromkeys((*old, *new)):
        yield *place, old.get(place), new.get(place)


def _places(manifest: Manifest) -> dict[tuple[str, int], ArtifactRef]:
    counts: Counter[str] = Counter()
    found: dict[tuple[str, int], ArtifactRef] = {}
    for entry in manifest.stages:
        for ref in entry.results:
            found[entry.name, counts[entry.name]] = ref
            counts[entry.name] += 1
    return found


def _compared(
    stage: str, position: int, old: ArtifactRef | None, new: ArtifactRef | None, store: Store
) -> ArtifactComparison:
    equal = old is not None and new is not None and old.sha256 == new.sha256
    difference, note = (0, "") if equal else _difference(old, new, store)
    return ArtifactComparison(
        stage=stage,
        position=position,
        before=old.sha256 if old else None,
        after=new.sha256 if new else None,
        equal=equal,
        max_difference=difference,
        note=note,
    )


def _difference(
    old: ArtifactRef | None, new: ArtifactRef | None, store: Store
) -> tuple[int | None, str]:
    if old is None or new is None:
        return None, f"only the {'second' if old is None else 'first'} run made it"
    if old.kind != new.kind or old.kind not in ("image", "video"):
        return None, f"{old.media_type} and {new.media_type} cannot be compared"
    worst = 0
    try:
        for first, second in zip_longest(_frames(old, store), _frames(new, store)):
            if first is None or second is None:
                return None, f"{old.frames} and {new.frames} frames"
            if first.shape != second.shape:
                return None, f"{_size(first)} and {_size(second)} px"
            worst = max(worst, _levels(first, second))
    except (InvalidMediaError, MissingFileError) as error:
        return None, error.problem
    return worst, ""


def _frames(ref: ArtifactRef, store: Store) -> Iterator[Pixels]:
    if ref.kind == "video":
        yield from read_frames(store.fetch(ref))
    elif ref.frames:
        yield from frames_of(store.read(ref))
    else:
        yield decode_still(store.read(ref)).pixels


def _levels(first: Pixels, second: Pixels) -> int:
    above = np.maximum(first, second) - np.minimum(first, second)
    return int(above.max(initial=0))


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _given(value: dict[str, JsonValue], stored: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Parameters with media replaced by what is stored, also one level down, as pipelines have."""

    def one(name: str, item: JsonValue) -> JsonValue:
        if isinstance(item, list):
            return [one(f"{name}.{at}", each) for at, each in enumerate(item)]
        return stored[name] if name in stored and isinstance(item, str) else item

    def replaced(given: dict[str, JsonValue]) -> dict[str, JsonValue]:
        return {name: one(name, item) for name, item in given.items()}

    inside = {n: replaced(item) if isinstance(item, dict) else item for n, item in value.items()}
    return replaced(inside)

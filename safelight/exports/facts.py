"""What is known of a result, field by field of a template."""

import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath

from pydantic import JsonValue

from safelight.errors import MissingFileError
from safelight.exports.parts import cut, plain
from safelight.exports.template import CHOICES, Value
from safelight.params import SEEDS
from safelight.provenance.batches import BatchOutcome, BatchReport
from safelight.provenance.manifest import MANIFESTS, Manifest, StageEntry, load_manifest
from safelight.store.artifact import EXTENSIONS, ArtifactRef
from safelight.store.store import SCHEME

LONGEST_PROMPT = 60
"""Characters of a prompt in the field `name`."""
SHORT_ID = 16
"""Characters of a sha256 that names what has no other name."""
_NOT_NAMED = re.compile(r"(line|row|request|cell) \d+")
"""Of a request to which its file gave no name."""
_MEDIA = ("image/", "video/", "audio/")
_UNKNOWN = datetime(1980, 1, 1, tzinfo=UTC)
"""The first moment that a zip knows."""


@dataclass(frozen=True)
class Result:
    """A result with what its name can be made of."""

    ref: ArtifactRef
    """Its bytes."""
    facts: Mapping[str, Value]
    """By field."""
    moment: datetime
    """When its run ended."""

    @property
    def otherwise(self) -> str:
        """Its name where a template gives none."""
        return self.ref.sha256[:SHORT_ID]


def run_results(manifest: Manifest, source: str = "") -> list[Result]:
    """What people look at of a run.

    Args:
        manifest: of the run.
        source: path or name of the file that it works on, as it was given; empty for none.
    """
    return [*_results(manifest, manifest.shown, source, {})]


def stage_results(manifest: Manifest, source: str = "") -> list[tuple[str, Result]]:
    """What the stages of a run made that is no result of it, with the stage's name."""
    results = {ref.sha256 for ref in manifest.results}
    found: dict[str, tuple[str, ArtifactRef]] = {}
    for entry in manifest.stages:
        for ref in entry.results:
            if ref.sha256 not in results:
                found.setdefault(ref.sha256, (entry.name, ref))
    refs = [ref for _, ref in found.values()]
    stages = [stage for stage, _ in found.values()]
    return [*zip(stages, _results(manifest, refs, source, {}), strict=True)]


def batch_results(report: BatchReport) -> list[Result]:
    """What the requests of a batch made, in their order; those that failed made nothing."""
    return [result for outcome in report.each() for result in outcome_results(report, outcome)]


def outcome_results(report: BatchReport, outcome: BatchOutcome) -> list[Result]:
    """What one request of a batch made."""
    if not outcome.results:
        return []
    more: dict[str, Value] = {"batch": report.batch, "number": outcome.number}
    source = "" if _NOT_NAMED.fullmatch(outcome.where) else outcome.where
    try:
        manifest = load_manifest(f"{MANIFESTS}{outcome.flow_run_id}.json")
    except MissingFileError:  # its files are there, what is known of them is not
        manifest = None
    return [*_results(manifest, outcome.results, source, {"preset": report.flow, **more})]


def _results(
    manifest: Manifest | None, refs: Sequence[ArtifactRef], source: str, more: Mapping[str, Value]
) -> Iterator[Result]:
    for index, ref in enumerate(refs, 1):
        facts: dict[str, Value] = {}
        moment = _UNKNOWN
        if manifest is not None:
            entry = _drawn_by(manifest, ref)
            facts = {**_scalars(entry.parameters if entry else {}), **_scalars(manifest.parameters)}
            facts |= {**_choices(manifest), **_of_run(manifest, entry), **_own_seed(entry, ref)}
            moment = datetime.fromisoformat(manifest.ended)
            source = source or _path_in(manifest.parameters)
        facts |= {**_of_file(ref), **_of_source(source), **more}
        facts["index"] = index
        facts["name"] = str(facts.get("source", "")) or _called(facts)
        yield Result(ref, {name: value for name, value in facts.items() if value != ""}, moment)


def _drawn_by(manifest: Manifest, ref: ArtifactRef) -> StageEntry | None:
    """The stage whose prompt and seed are the file's: its own, else the first that has a prompt."""
    prompted = [e for e in manifest.stages if isinstance(e.parameters.get("prompt"), str)]
    own = (entry for entry in prompted if ref.sha256 in {made.sha256 for made in entry.results})
    return next(own, prompted[0] if prompted else None)


def _own_seed(entry: StageEntry | None, ref: ArtifactRef) -> dict[str, Value]:
    """Of one of several pictures that a stage drew: the first has the stage's, each the next."""
    digests = [made.sha256 for made in entry.results] if entry else []
    seed = entry.parameters.get("seed") if entry else None
    if len(digests) < 2 or ref.sha256 not in digests or not isinstance(seed, int):
        return {}
    return {"seed": (seed + digests.index(ref.sha256)) % SEEDS}


def _of_run(manifest: Manifest, entry: StageEntry | None) -> dict[str, Value]:
    drawn = entry.parameters if entry else {}
    started = datetime.fromisoformat(manifest.started)
    found: dict[str, Value] = {
        "preset": manifest.flow,
        "run": manifest.flow_run_id,
        "date": started,
        "time": started,
        "quality": manifest.quality or "",
        "lora": "+".join(_names(drawn.get("loras"))),
    }
    for name in ("prompt", "negative_prompt", "model"):
        value = drawn.get(name) or manifest.parameters.get(name)
        if isinstance(value, str):
            found[name] = value
    seeds = [drawn.get("seed"), manifest.parameters.get("seed"), *manifest.seeds.values()]
    seed = next((seed for seed in seeds if isinstance(seed, int)), None)
    if seed is not None:
        found["seed"] = seed
    return found


def _of_file(ref: ArtifactRef) -> dict[str, Value]:
    found: dict[str, Value] = {"id": ref.sha256}
    if ref.width and ref.height:
        found |= {"width": ref.width, "height": ref.height, "size": f"{ref.width}x{ref.height}"}
    return found


def _of_source(source: str) -> dict[str, Value]:
    """Name without its ending, and the folder where the path is a relative one."""
    if not source:
        return {}
    path = PurePosixPath(PureWindowsPath(source).as_posix() if "\\" in source else source)
    folder = "" if path.is_absolute() or ":" in path.parts[0] else str(path.parent)
    kind = mimetypes.guess_type(path.name)[0] or ""
    is_media = kind.startswith(_MEDIA) or path.suffix.lower() in EXTENSIONS.values()
    name = path.stem if is_media else path.name  # a request may be called "Mug 0.5 l"
    return {"source": name, "folder": "" if folder == "." else folder}


def _called(facts: Mapping[str, Value]) -> str:
    """A name made of prompt and seed."""
    prompt, seed = cut(plain(str(facts.get("prompt", ""))), LONGEST_PROMPT), facts.get("seed")
    if not prompt:
        return ""
    return prompt if seed is None else f"{prompt}-{seed}"


def _path_in(parameters: Mapping[str, JsonValue]) -> str:
    """The file that a run names by a path; its folder is where it lies, not what it is called."""
    for name in ("image", "video"):
        value = parameters.get(name)
        if isinstance(value, str) and value and not value.startswith(SCHEME):
            return PurePosixPath(value).name
    return ""


def _choices(manifest: Manifest) -> dict[str, Value]:
    """Prompts as they were drawn, and the words that took the place of choices in them.

    The first choice of a wildcard is called by its name, each choice also by its place, from 1.
    """
    found: dict[str, Value] = {one.field: one.text for one in manifest.unfolded}
    words = [
        (choice.source.strip("_") if choice.source.startswith("__") else "", " ".join(choice.took))
        for one in manifest.unfolded
        for choice in one.choices
    ]
    for place, (name, word) in enumerate(words, 1):
        found[f"{CHOICES}{place}"] = word
        if name:
            found.setdefault(f"{CHOICES}{name}", word)
    return {**found, "choices": "-".join(word for _, word in words)}


def _names(loras: JsonValue) -> list[str]:
    given = loras if isinstance(loras, list) else []
    return [str(each["name"]) for each in given if isinstance(each, Mapping) and "name" in each]


def _scalars(parameters: Mapping[str, JsonValue]) -> dict[str, Value]:
    return {
        name: value if not isinstance(value, bool) else str(value).lower()
        for name, value in parameters.items()
        if isinstance(value, str | int | float)
        and not (isinstance(value, str) and value.startswith(SCHEME))
    }

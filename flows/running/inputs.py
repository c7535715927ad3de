"""The media a flow is given, and the types its form shows for them."""

from collections.abc import Callable
from typing import Annotated, get_args, get_type_hints

from pydantic import Field

from flows.running.gating import passed, people_in
from presets.base.preset import K, Overrides, Preset, Quality
from safelight.params import Seed as DrawnSeed
from safelight.store.artifact import ArtifactRef, MediaKind
from tasks.base.ingest import ingest
from tasks.base.recorder import recorder

Prompt = Annotated[
    str,
    Field(min_length=1, max_length=2000, description="What the picture shows."),
]
Seed = Annotated[
    DrawnSeed,
    Field(
        description="Same seed, same picture. None or -1: one is drawn, and kept in the manifest."
    ),
]
Media = Annotated[
    str,
    Field(
        min_length=1,
        max_length=4096,
        description="A file under the volume root, or the store: link of an artifact.",
    ),
]
MOST_MEDIA = 64
"""In one list; more are a batch."""
Several = Annotated[
    list[Media],
    Field(
        min_length=1,
        max_length=MOST_MEDIA,
        description="Files under the volume root, or store: links of artifacts, in order.",
    ),
]
QualityLevel = Annotated[Quality, Field(description="How much work goes into the result.")]
Changes = Annotated[
    Overrides,
    Field(
        description='Tuned values to replace, by step: {"generate": {"steps": 30}}. '
        "All others keep their values."
    ),
]


def media_parameters(fn: Callable[..., object]) -> dict[str, object]:
    """Parameters of a flow's function that take pictures or videos, with their types."""
    hints = get_type_hints(fn, include_extras=True)
    return {
        name: hint
        for name, hint in hints.items()
        if hint in (Media, Several) or Media in get_args(hint)
    }


def ingest_media(name: str, location: str, kinds: tuple[MediaKind, ...]) -> ArtifactRef:
    """Check a file that a run was given and enter it in the run's record under `name`."""
    ref = ingest(location, kinds)
    recorder().inputs[name] = ref
    return ref


def ingest_several(
    name: str, locations: list[str], kinds: tuple[MediaKind, ...]
) -> list[ArtifactRef]:
    """The same for a list of files, which are `name.0`, `name.1` and so on in the record."""
    return [ingest_media(f"{name}.{at}", place, kinds) for at, place in enumerate(locations)]


def knobs_of(
    preset: Preset[K],
    quality: Quality,
    overrides: Overrides,
    switched: Callable[[K], K] | None = None,
) -> K:
    """A preset's knobs for a run, whose stages take its engines in its order from here on.

    Args:
        preset: the preset.
        quality: which of its levels.
        overrides: the caller's changes.
        switched: adds and takes away steps of the level before the changes are made.

    Raises:
        PipelineError: as `Knobs.overridden` says.
    """
    knobs = preset.at(quality)
    if switched is not None:
        knobs = switched(knobs)
    if overrides:
        knobs = knobs.overridden(overrides)
    recorder().expected_stages = len(knobs.steps())
    recorder().engines = preset.engines
    if knobs.gate is not None and not knobs.redraws:
        gate, run = knobs.gate, recorder()
        run.look = lambda results: passed(results, gate, people_in(run.inputs))
    return knobs

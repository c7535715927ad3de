"""Pipelines as data: a list of stages that form a DAG, checked whole before anything loads."""

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import Field, JsonValue, ValidationError

from flows.running.prompts import unfolded_stage
from safelight.errors import ContractMismatchError, MissingRequiredFieldError
from safelight.params import ANY_SEED, Params, refusal
from safelight.store.artifact import MediaKind
from tasks.base.catalog import find_stage
from tasks.base.recorder import recorder
from tasks.base.stage import Makes, Stage

MEDIA_INPUTS: dict[str, MediaKind] = {
    "image": "image",
    "mask": "image",
    "video": "video",
    "audio": "audio",
}
"""Keys of a call's input that name files, and what must be in them."""


MOST_STAGES = 200
"""Of a pipeline; people's have a dozen."""


class StageSpec(Params):
    """One stage of a pipeline."""

    stage_type: str
    """Which stage: generate, refine, upscale, ...; older names are understood."""
    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    """What other stages and the result call it; unique in the pipeline."""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """Parameters of the stage; the call's input wins over them."""
    reads: tuple[str, ...] | None = None
    """Names of the earlier stages, or of the inputs image, mask, video, that it reads; a stage
    that takes a list, such as blend and storyboard, may name any number. None reads the stage
    before it, or the call's own image or video when it is the first."""


class Pipeline(Params):
    """Stages and the parameters that all of them share."""

    stages: tuple[StageSpec, ...] = Field(min_length=1, max_length=MOST_STAGES)
    """In any order that `reads` makes sense of; run as a DAG."""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """Given to every stage with a field of that name; a stage's own parameters win over them."""


@dataclass(frozen=True)
class PlannedStage:
    """One checked stage."""

    name: str
    """Its name in the pipeline."""
    stage: Stage[..., Any]
    """What runs."""
    params: Params
    """Its parameters: defaults, then the pipeline's, the stage's own, and the call's input."""
    reads: tuple[str, ...]
    """Stages and inputs it reads, in the order of its arguments."""
    gives: MediaKind
    """Media kind of its result."""
    again: "PlannedStage | None" = None
    """What draws again, with the next seed, what does not pass here."""


@dataclass(frozen=True)
class Plan:
    """A pipeline that has passed every check."""

    stages: tuple[PlannedStage, ...]
    """Each after all that it reads."""

    @property
    def ends(self) -> tuple[str, ...]:
        """Stages that no other stage reads: what the pipeline gives."""
        read = {name for planned in self.stages for name in planned.reads}
        return tuple(planned.name for planned in self.stages if planned.name not in read)


def plan_pipeline(
    pipeline: Pipeline,
    call_input: dict[str, JsonValue],
    seed: int | None = None,
    *,
    runs: bool = False,
) -> Plan:
    """Check a pipeline and its call, and put the stages in order; no model and no file is opened.

    Args:
        pipeline: the stages.
        call_input: media under image, mask, video or audio; every other key is a parameter that
            wins over the pipeline's. `name.field` addresses one stage.
        seed: of the run; taken by every stage that draws noise and was given no other.
        runs: its prompts unfold, and are entered in the run's record; else they are looked at.

    Raises:
        ContractMismatchError: unknown stage or field, a name used twice, a cycle, a stage that
            does not exist being read, or the wrong kind of media.
        MissingRequiredFieldError: a stage lacks an input or a required parameter.
        InvalidFieldValueError: a parameter is outside its limits.
    """
    specs = {spec.name: spec for spec in pipeline.stages}
    if len(specs) < len(pipeline.stages):
        names = [spec.name for spec in pipeline.stages]
        twice = next(name for name in names if names.count(name) > 1)
        raise ContractMismatchError(
            f"two stages are named {twice!r}", "give every stage a name of its own"
        )
    for name in specs:
        if name in MEDIA_INPUTS:
            raise ContractMismatchError(
                f"a stage is named {name!r}, which is the name of an input", "rename the stage"
            )
    stages = {name: _stage_of(spec) for name, spec in specs.items()}
    reads = _reads(pipeline, stages, call_input)
    order = _ordered(reads)
    used: set[str] = set()
    kinds: dict[str, MediaKind] = {
        name: kind for name, kind in MEDIA_INPUTS.items() if call_input.get(name) is not None
    }
    planned: list[PlannedStage] = []
    params = {
        name: _params_of(
            specs[name], stages[name], pipeline.parameters, call_input, used, seed, runs
        )
        for name in order
    }
    for name in order:
        _check_kinds(name, stages[name], reads[name], kinds)
        stage = stages[name]
        kinds[name] = _kind_of(stage.makes, [kinds[read] for read in reads[name]], params[name])
        again = _drawing_again(name, params[name], reads[name], planned)
        planned.append(PlannedStage(name, stage, params[name], reads[name], kinds[name], again))
    _refuse_unused(pipeline.parameters, call_input, used)
    _refuse_unread(kinds.keys() - stages.keys(), reads)
    return Plan(tuple(planned))


def _drawing_again(
    name: str, params: Params, reads: tuple[str, ...], planned: list[PlannedStage]
) -> PlannedStage | None:
    """The stage before a gate that is to have it draw again."""
    if getattr(params, "policy", None) != "next_seed":
        return None
    before = next((each for each in planned if reads and each.name == reads[0]), None)
    draws = before is not None and before.stage.declared.origin in ("creates", "redraws")
    if before is None or not draws or "seed" not in type(before.params).model_fields:
        what = reads[0] if reads else "nothing"
        raise ContractMismatchError(
            f"stage {name}: its policy is next_seed, and {what}, which it reads, draws nothing by "
            "a seed",
            f"let {name} read the stage that draws, or set its policy to fail or warn",
        )
    return before


def _stage_of(spec: StageSpec) -> Stage[..., Any]:
    try:
        return find_stage(spec.stage_type)
    except ContractMismatchError as error:
        raise ContractMismatchError(f"stage {spec.name}: {error.problem}", error.remedy) from error


def _reads(
    pipeline: Pipeline, stages: dict[str, Stage[..., Any]], call_input: dict[str, JsonValue]
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    previous: str | None = None
    for spec in pipeline.stages:
        wanted = _inputs_of(stages[spec.name])
        reads = spec.reads
        if reads is None:
            reads = _default_reads(spec.name, stages[spec.name], previous, call_input)
        gathers, optional = stages[spec.name].gathers, stages[spec.name].optional
        too_few = len(reads) < len(wanted) and not (optional and not reads)
        if too_few or (len(reads) > len(wanted) and not gathers):
            more = " or more" if gathers else " or none" if optional else ""
            raise ContractMismatchError(
                f"stage {spec.name}: reads {len(reads)} ({', '.join(reads) or 'nothing'}), "
                f"{spec.stage_type} takes {len(wanted)}{more} "
                f"({', '.join(wanted) or 'nothing'})",
                f"correct reads of {spec.name}",
            )
        for name in reads:
            if name not in stages and name not in MEDIA_INPUTS:
                raise ContractMismatchError(
                    f"stage {spec.name}: reads {name!r}, which is neither a stage "
                    f"({', '.join(stages)}) nor an input ({', '.join(MEDIA_INPUTS)})",
                    f"correct reads of {spec.name}",
                )
        found[spec.name] = reads
        previous = spec.name
    return found


def _default_reads(
    name: str,
    stage: Stage[..., Any],
    previous: str | None,
    call_input: dict[str, JsonValue],
) -> tuple[str, ...]:
    wanted = _inputs_of(stage)
    if not wanted:
        return ()
    kinds = stage.reads[wanted[0]]
    first = previous
    if first is None:
        first = next((kind for kind in kinds if call_input.get(kind) is not None), None)
    if first is None and stage.optional:
        return ()
    if first is None:
        raise MissingRequiredFieldError(
            f"stage {name}: {stage.name} needs {' or '.join(kinds)}, and the call has none",
            f"add {kinds[0]} to the call's input, or a stage before {name}",
        )
    return (first, *wanted[1:])


def _inputs_of(stage: Stage[..., Any]) -> list[str]:
    return list(stage.reads)


def _ordered(reads: dict[str, tuple[str, ...]]) -> list[str]:
    graph = {name: [read for read in names if read in reads] for name, names in reads.items()}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        ring = " -> ".join(error.args[1])
        raise ContractMismatchError(
            f"the stages read each other in a circle: {ring}", "break the circle in reads"
        ) from error


def _params_of(
    spec: StageSpec,
    stage: Stage[..., Any],
    shared: dict[str, JsonValue],
    call_input: dict[str, JsonValue],
    used: set[str],
    seed: int | None,
    runs: bool,
) -> Params:
    fields = stage.params_type.model_fields
    drawn: dict[str, JsonValue] = {"seed": seed} if "seed" in fields and seed is not None else {}
    merged = drawn | {name: value for name, value in shared.items() if name in fields}
    merged.update(spec.parameters)
    for key, value in call_input.items():
        if key in fields and key not in MEDIA_INPUTS:
            merged[key] = value
    for key, value in call_input.items():  # what addresses one stage wins, in any order
        owner, _, field = key.rpartition(".")
        if owner == spec.name:
            merged[field] = value
            used.add(key)
    used.update(name for name in fields if name in shared or name in call_input)
    if merged.get("seed") in (None, ANY_SEED) and "seed" in drawn:
        merged["seed"] = seed
    merged, prompts = unfolded_stage(spec.name, merged, seed if runs else None)
    recorder().unfolded.extend(prompts)
    try:
        return stage.params_type.model_validate(merged)
    except ValidationError as error:
        raise refusal(error, f"stage {spec.name}") from error


def _check_kinds(
    name: str, stage: Stage[..., Any], reads: tuple[str, ...], kinds: dict[str, MediaKind]
) -> None:
    for (wanted, may_be), read in zip(stage.inputs(len(reads)), reads, strict=True):
        if read not in kinds:
            raise MissingRequiredFieldError(
                f"stage {name}: reads the input {read!r}, and the call has none",
                f"add {read} to the call's input",
            )
        if kinds[read] not in may_be:
            raise ContractMismatchError(
                f"stage {name}: {stage.name} takes {' or '.join(may_be)} as its {wanted}, "
                f"{read} gives {kinds[read]}",
                f"let {name} read another stage",
            )


def _kind_of(makes: Makes, read: list[MediaKind], params: Params) -> MediaKind:
    if makes == "same":
        return read[0]
    if makes == "stated":
        stated: str = getattr(params, "makes", "")
        return stated if stated in ("image", "video", "audio") else "other"
    return makes


def _refuse_unread(media: set[str], reads: dict[str, tuple[str, ...]]) -> None:
    """Refuse media that nothing would be made of, for instance a mask beside no inpaint."""
    unread = sorted(media.difference(*reads.values()))
    if unread:
        raise ContractMismatchError(
            f"the call's input: no stage reads {' and '.join(unread)}",
            f"remove {unread[0]}, or name it in reads of a stage",
        )


def _refuse_unused(
    shared: dict[str, JsonValue], call_input: dict[str, JsonValue], used: set[str]
) -> None:
    for source, where in ((shared, "the pipeline's parameters"), (call_input, "the call's input")):
        for key in source:
            if key not in used and key not in MEDIA_INPUTS:
                raise ContractMismatchError(
                    f"{where}: no stage has a field {key!r}", f"remove {key} or correct its name"
                )

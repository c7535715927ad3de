"""Pipelines as data: a list of stages that form a DAG, checked whole before anything loads."""

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import JsonValue

from flows.pipelines.described import MEDIA_INPUTS, Pipeline, StageSpec
from flows.pipelines.filling import Filled
from flows.pipelines.problems import Tell, refuse
from safelight.errors import ContractMismatchError, MissingRequiredFieldError
from safelight.params import Params
from safelight.store.artifact import MediaKind
from tasks.base.catalog import find_stage
from tasks.base.stage import Makes, Stage


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
    tell: Tell = refuse,
) -> Plan:
    """Check a pipeline and its call, and put the stages in order; no model and no file is opened.

    Args:
        pipeline: the stages.
        call_input: media under image, mask, video or audio; every other key is a parameter that
            wins over the pipeline's. `name.field` addresses one stage.
        seed: of the run; taken by every stage that draws noise and was given no other.
        runs: its prompts unfold, and are entered in the run's record; else they are looked at.
        tell: takes what is wrong, with its place. One that raises nothing is told everything; the
            plan then lacks the stages that are not right.

    Raises:
        ContractMismatchError: unknown stage or field, a name used twice, a cycle, a stage that
            does not exist being read, or the wrong kind of media.
        MissingRequiredFieldError: a stage lacks an input or a required parameter.
        InvalidFieldValueError: a parameter is outside its limits.
    """
    refuse_names(pipeline, tell)
    specs = {spec.name: (at, spec) for at, spec in enumerate(pipeline.stages)}
    stages = {name: _stage_of(at, spec, tell) for name, (at, spec) in specs.items()}
    reads = _reads(pipeline, stages, call_input, tell)
    order = _ordered(reads, specs, tell)
    used: set[str] = set()
    kinds: dict[str, MediaKind | None] = {
        name: kind for name, kind in MEDIA_INPUTS.items() if call_input.get(name) is not None
    }
    planned: list[PlannedStage] = []
    filled = Filled(pipeline.parameters, call_input, seed, runs=runs)
    params: dict[str, Params | None] = {}
    for name in order:
        stage = stages[name]
        params[name] = None if stage is None else filled.params_of(*specs[name], stage, used, tell)
    for name in order:
        at, stage, its = specs[name][0], stages[name], params[name]
        if stage is None:
            kinds[name] = None
            continue
        _check_kinds(at, name, stage, reads[name], kinds, tell)
        first = kinds.get(reads[name][0]) if reads[name] else None
        gives = kinds[name] = _kind_of(stage.makes, first, its)
        again = _drawing_again(at, name, its, reads[name], planned, tell)
        if its is not None and gives is not None:
            planned.append(PlannedStage(name, stage, its, reads[name], gives, again))
    if None not in stages.values():
        _refuse_unused(pipeline.parameters, call_input, used, tell)
    _refuse_unread(kinds.keys() - stages.keys(), reads, tell)
    return Plan(tuple(planned))


def refuse_names(pipeline: Pipeline, tell: Tell = refuse) -> None:
    """Tell of stages whose name another stage or an input has."""
    names = [spec.name for spec in pipeline.stages]
    for at, name in enumerate(names):
        if name in names[:at]:
            error = ContractMismatchError(
                f"two stages are named {name!r}", "give every stage a name of its own"
            )
            tell(("stages", at, "name"), error)
    for at, name in enumerate(names):
        if name in MEDIA_INPUTS:
            error = ContractMismatchError(
                f"a stage is named {name!r}, which is the name of an input", "rename the stage"
            )
            tell(("stages", at, "name"), error)


def _drawing_again(
    at: int,
    name: str,
    params: Params | None,
    reads: tuple[str, ...],
    planned: list[PlannedStage],
    tell: Tell,
) -> PlannedStage | None:
    """The stage before a gate that is to have it draw again."""
    if getattr(params, "policy", None) != "next_seed":
        return None
    before = next((each for each in planned if reads and each.name == reads[0]), None)
    draws = before is not None and before.stage.declared.origin in ("creates", "redraws")
    if before is None or not draws or "seed" not in type(before.params).model_fields:
        what = reads[0] if reads else "nothing"
        error = ContractMismatchError(
            f"stage {name}: its policy is next_seed, and {what}, which it reads, draws nothing by "
            "a seed",
            f"let {name} read the stage that draws, or set its policy to fail or warn",
        )
        tell(("stages", at, "parameters", "policy"), error)
        return None
    return before


def _stage_of(at: int, spec: StageSpec, tell: Tell) -> Stage[..., Any] | None:
    try:
        return find_stage(spec.stage_type)
    except ContractMismatchError as error:
        named = ContractMismatchError(f"stage {spec.name}: {error.problem}", error.remedy)
        named.__cause__ = error
        tell(("stages", at, "stage_type"), named)
        return None


def _reads(
    pipeline: Pipeline,
    stages: dict[str, Stage[..., Any] | None],
    call_input: dict[str, JsonValue],
    tell: Tell,
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    previous: str | None = None
    for at, spec in enumerate(pipeline.stages):
        stage, reads = stages[spec.name], spec.reads
        if stage is not None:
            if reads is None:
                reads = _default_reads(at, spec.name, stage, previous, call_input, tell)
            wanted, gathers, optional = list(stage.reads), stage.gathers, stage.optional
            too_few = len(reads) < len(wanted) and not (optional and not reads)
            if too_few or (len(reads) > len(wanted) and not gathers):
                more = " or more" if gathers else " or none" if optional else ""
                error = ContractMismatchError(
                    f"stage {spec.name}: reads {len(reads)} ({', '.join(reads) or 'nothing'}), "
                    f"{spec.stage_type} takes {len(wanted)}{more} "
                    f"({', '.join(wanted) or 'nothing'})",
                    f"correct reads of {spec.name}",
                )
                if spec.reads is not None:  # else it is told what it has no default for
                    tell(("stages", at, "reads"), error)
        for place, name in enumerate(reads or ()):
            if name not in stages and name not in MEDIA_INPUTS:
                error = ContractMismatchError(
                    f"stage {spec.name}: reads {name!r}, which is neither a stage "
                    f"({', '.join(stages)}) nor an input ({', '.join(MEDIA_INPUTS)})",
                    f"correct reads of {spec.name}",
                )
                tell(("stages", at, "reads", place), error)
        found.setdefault(spec.name, reads or ())
        previous = spec.name
    return found


def _default_reads(
    at: int,
    name: str,
    stage: Stage[..., Any],
    previous: str | None,
    call_input: dict[str, JsonValue],
    tell: Tell,
) -> tuple[str, ...]:
    wanted = list(stage.reads)
    if not wanted:
        return ()
    kinds = stage.reads[wanted[0]]
    first = previous
    if first is None:
        first = next((kind for kind in kinds if call_input.get(kind) is not None), None)
    if first is None and stage.optional:
        return ()
    if first is None:
        error = MissingRequiredFieldError(
            f"stage {name}: {stage.name} needs {' or '.join(kinds)}, and the call has none",
            f"add {kinds[0]} to the call's input, or a stage before {name}",
        )
        tell(("stages", at, "reads"), error)
        return ()
    return (first, *wanted[1:])


def _ordered(
    reads: dict[str, tuple[str, ...]], specs: dict[str, tuple[int, StageSpec]], tell: Tell
) -> list[str]:
    graph = {name: [read for read in names if read in reads] for name, names in reads.items()}
    while True:
        try:
            return list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            ring: list[str] = error.args[1]
            circle = ContractMismatchError(
                f"the stages read each other in a circle: {' -> '.join(ring)}",
                "break the circle in reads",
            )
            circle.__cause__ = error
            # each of the ring is read by the one after it
            tell(("stages", specs[ring[1]][0], "reads"), circle)
            graph[ring[1]] = [read for read in graph[ring[1]] if read != ring[0]]


def _check_kinds(
    at: int,
    name: str,
    stage: Stage[..., Any],
    reads: tuple[str, ...],
    kinds: Mapping[str, MediaKind | None],
    tell: Tell,
) -> None:
    for place, ((wanted, may_be), read) in enumerate(
        zip(stage.inputs(len(reads)), reads, strict=False)
    ):
        if read not in kinds:
            if read in MEDIA_INPUTS:
                error = MissingRequiredFieldError(
                    f"stage {name}: reads the input {read!r}, and the call has none",
                    f"add {read} to the call's input",
                )
                tell(("stages", at, "reads", place), error)
        elif (kind := kinds[read]) is not None and kind not in may_be:
            error = ContractMismatchError(
                f"stage {name}: {stage.name} takes {' or '.join(may_be)} as its {wanted}, "
                f"{read} gives {kind}",
                f"let {name} read another stage",
            )
            tell(("stages", at, "reads", place), error)


def _kind_of(makes: Makes, first: MediaKind | None, params: Params | None) -> MediaKind | None:
    if makes == "same":
        return first
    if makes == "stated":
        stated: str = getattr(params, "makes", "")
        other = None if params is None else "other"
        return stated if stated in ("image", "video", "audio") else other
    return makes


def _refuse_unread(media: set[str], reads: dict[str, tuple[str, ...]], tell: Tell) -> None:
    """Refuse media that nothing would be made of, for instance a mask beside no inpaint."""
    unread = sorted(media.difference(*reads.values()))
    if unread:
        error = ContractMismatchError(
            f"the call's input: no stage reads {' and '.join(unread)}",
            f"remove {unread[0]}, or name it in reads of a stage",
        )
        tell(("call_input", unread[0]), error)


def _refuse_unused(
    shared: dict[str, JsonValue], call_input: dict[str, JsonValue], used: set[str], tell: Tell
) -> None:
    for source, where, outer in (
        (shared, "the pipeline's parameters", "parameters"),
        (call_input, "the call's input", "call_input"),
    ):
        for key in source:
            if key not in used and key not in MEDIA_INPUTS:
                error = ContractMismatchError(
                    f"{where}: no stage has a field {key!r}", f"remove {key} or correct its name"
                )
                tell((outer, key), error)

"""Gates of pipelines: what does not pass is drawn again, by the stage that drew it."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from flows.pipelines.plan import PlannedStage
from safelight.errors import PictureRefusedError
from safelight.params import SEEDS
from safelight.store.artifact import ArtifactRef
from tasks.base.recorder import recorder
from tasks.check import CheckParams

Arguments = tuple[ArtifactRef | list[ArtifactRef] | None, ...]


def passing(
    gate: PlannedStage,
    looked: ArtifactRef,
    at: int,
    outcomes: Mapping[int, Sequence[ArtifactRef]],
    arguments: Sequence[Arguments],
) -> ArtifactRef:
    """What a gate gives: a picture that passes, drawn again by itself where the first did not.

    Seeds that others of the same drawing took are passed over.

    Args:
        gate: a check whose policy is next_seed.
        looked: what it said of the first drawing.
        at: the place of that among all that the stage before it drew.
        outcomes: what each call of that stage gave.
        arguments: of each of those calls.

    Raises:
        PictureRefusedError: none passes, and the gate is to fail then.
        SafetyFilterError: the same, by what the safety checker found.
    """
    drawer, params = gate.again, gate.params
    if drawer is None or not isinstance(params, CheckParams):
        return looked
    call, inside = _place(at, outcomes)
    together = len(outcomes[call])
    first = int(getattr(drawer.params, "seed", None) or 0)
    tried: list[JsonValue] = [(first + inside) % SEEDS]
    passed = looked if looked.metadata.get("passed") else None
    for attempt in range(1, params.tries):
        if passed is not None:
            break
        seed = (first + together * attempt + inside) % SEEDS
        tried.append(seed)
        alone = {"num_images": 1} if "num_images" in type(drawer.params).model_fields else {}
        try:
            made = drawer.stage.named(
                drawer.name, *arguments[call], drawer.params.but(seed=seed, **alone)
            )
        except PictureRefusedError:
            continue
        picture = made if isinstance(made, ArtifactRef) else made[0]
        again: ArtifactRef = gate.stage.named(gate.name, picture, params)
        passed = again if again.metadata.get("passed") else None
    taken = tried[0] if passed is None else tried[-1]
    gates = recorder().answer.setdefault("gates", [])
    if isinstance(gates, list):
        gates.append(
            {"stage": gate.name, "seeds": tried, "taken": taken, "passed": passed is not None}
        )
    if passed is None and params.then == "fail":
        gate.stage.named(gate.name, looked, params.but(policy="fail"))
    return passed or looked


def _place(at: int, outcomes: Mapping[int, Sequence[ArtifactRef]]) -> tuple[int, int]:
    for call, made in sorted(outcomes.items()):
        if at < len(made):
            return call, at
        at -= len(made)
    raise ValueError("a gate looks at what no call of the stage before it made")

"""Quality gates: drawings are looked at, and drawn again with the next seed where that helps."""

from collections.abc import Callable

from pydantic import JsonValue

from presets.base.gate import GateParams
from safelight.params import SEEDS
from safelight.store.artifact import ArtifactRef
from tasks.base.recorder import recorder, unseen
from tasks.check import CheckParams, check


def gated(
    draw: Callable[[int], ArtifactRef], seed: int, gate: GateParams | None
) -> tuple[ArtifactRef, int]:
    """A drawing that passes a gate, or what the gate says of it; and the seed that drew it.

    Which seeds were tried, which was taken and whether it passed stands in the run's answer; what
    each drawing lacks, in the entries of the check.

    Args:
        draw: from a seed to a picture.
        seed: the first one; each further try takes the next.
        gate: what the picture has to show; None takes it as it is.

    Raises:
        PictureRefusedError: it does not pass, and the gate is to fail then.
    """
    if gate is None:
        return draw(seed), seed
    looks = CheckParams(blank=gate.blank, faces=gate.faces, confidence=gate.confidence)
    again = gate.policy == "next_seed"
    tries = gate.tries if again else 1
    first: ArtifactRef | None = None
    tried: list[JsonValue] = []
    for at in range(tries):
        now = (seed + at) % SEEDS
        with unseen():
            picture = draw(now)
        tried.append(now)
        first = first or picture
        looked = check(picture, looks.but(policy="warn"))
        if looked.metadata.get("passed"):
            _say(tried, now, passed=True)
            return picture, now
    _say(tried, seed, passed=False)
    last = gate.then if again else gate.policy
    if last == "fail":
        check(first or draw(seed), looks.but(policy="fail"))
    return first or draw(seed), seed


def _say(tried: list[JsonValue], taken: int, *, passed: bool) -> None:
    gates = recorder().answer.setdefault("gates", [])
    if isinstance(gates, list):
        gates.append({"seeds": [*tried], "taken": taken, "passed": passed})

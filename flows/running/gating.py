"""Quality gates: results are looked at, and drawn again with the next seed where that helps."""

from collections.abc import Callable, Mapping, Sequence

from pydantic import JsonValue

from presets.base.gate import GateParams
from safelight.errors import InvalidFieldValueError, PictureRefusedError
from safelight.params import SEEDS
from safelight.store.artifact import ArtifactRef
from tasks.base.recorder import recorder, unseen
from tasks.check import CheckParams, check


def gated(
    draw: Callable[[int], ArtifactRef],
    seed: int,
    gate: GateParams | None,
    people: Sequence[ArtifactRef] = (),
    apart: int = 1,
) -> tuple[ArtifactRef, int]:
    """A drawing that passes a gate, or what the gate says of it; and the seed that drew it.

    Which seeds were tried, which was taken and whether it passed stands in the run's answer; what
    each drawing lacks, in the entries of the check. A drawing whose values are no numbers passes
    no gate.

    Args:
        draw: from a seed to a picture or video.
        seed: the first one; each further try takes the next.
        gate: what it has to show; None takes it as it is.
        people: photographs of the person whom it has to show.
        apart: how far the seed of the next try is from that of the one before.

    Raises:
        PictureRefusedError: it does not pass, and the gate is to fail then.
        SafetyFilterError: the same, by what the safety checker found.
    """
    if gate is None:
        return draw(seed), seed
    looks = _looks(gate, people)
    again = gate.policy == "next_seed"
    tries = gate.tries if again else 1
    first: ArtifactRef | None = None
    refused: PictureRefusedError | None = None
    tried: list[JsonValue] = []
    for at in range(tries):
        now = (seed + at * apart) % SEEDS
        tried.append(now)
        try:
            with unseen():
                picture = draw(now)
        except PictureRefusedError as error:
            refused = error
            continue
        first = first or picture
        looked = check(picture, looks.but(policy="warn"))
        if looked.metadata.get("passed"):
            _say(tried, now, passed=True)
            return picture, now
    _say(tried, seed, passed=False)
    if first is None and refused is not None:
        raise refused
    last = gate.then if again else gate.policy
    if last == "fail" and first is not None:
        check(first, looks.but(policy="fail"))
    return first or draw(seed), seed


def passed(
    results: Sequence[ArtifactRef], gate: GateParams | None, people: Sequence[ArtifactRef]
) -> None:
    """Look at what a run gives, which no seed draws again.

    Raises:
        As `gated`.
    """
    if gate is None:
        return
    looks = _looks(gate, people).but(policy="warn" if gate.policy == "warn" else "fail")
    for each in results:
        check(each, looks)


def _looks(gate: GateParams, people: Sequence[ArtifactRef]) -> CheckParams:
    references: tuple[str, ...] = ()
    if gate.similarity is not None:
        if not people:
            raise InvalidFieldValueError(
                "the gate's similarity is given, and there is no photograph to compare with",
                "name one in identity_reference, or leave similarity out",
            )
        references = tuple(each.uri for each in people)
    looks = CheckParams(
        blank=gate.blank,
        faces=gate.faces,
        confidence=gate.confidence,
        safe=gate.safe,
        references=references,
    )
    return looks if gate.similarity is None else looks.but(similarity=gate.similarity)


def _say(tried: list[JsonValue], taken: int, *, passed: bool) -> None:
    gates = recorder().answer.setdefault("gates", [])
    if isinstance(gates, list):
        gates.append({"seeds": [*tried], "taken": taken, "passed": passed})


def people_in(inputs: Mapping[str, ArtifactRef]) -> tuple[ArtifactRef, ...]:
    """The photographs of a person among what a run was given."""
    return tuple(ref for name, ref in inputs.items() if name.startswith("identity_reference"))

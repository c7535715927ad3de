"""Which engine serves: toy engines that are out, broke, busy or unwilling, in every order."""

from dataclasses import dataclass, field
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safelight import errors
from safelight.engines.choosing import Chosen, choose, engines, next_after
from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import (
    EnlargeRequest,
    Enlarges,
    Enlarging,
    FaceRequest,
    Refusal,
    Request,
)
from safelight.errors import ContractMismatchError, DependencyMissingError, PipelineError

REQUEST = EnlargeRequest("photo", 2, 64)
PASSES = ("EngineOfflineError", "EngineTimeoutError", "InsufficientFundsError")
ANSWERS = (
    "AuthMissingError",
    "AuthInvalidError",
    "InvalidFieldValueError",
    "SafetyFilterError",
    "RateLimitExceededError",
    "OutOfMemoryError",
)
WHERE = ("can", "health_check", "verify_identity", "check_balance", "identity", "work")


@dataclass
class Toy:
    """Enlarges, unless something is wrong with it."""

    engine_id: str
    engine_type: str = "remote"
    wrong: dict[str, PipelineError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    reproducible: bool = True

    def _answer(self, where: str) -> Refusal | None:
        self.asked.append(where)
        return self.wrong.get(where)

    def can(self, request: Request) -> Refusal | None:
        return self._answer("can")

    def health_check(self) -> Refusal | None:
        return self._answer("health_check")

    def verify_identity(self) -> Refusal | None:
        return self._answer("verify_identity")

    def check_balance(self, request: Request) -> Refusal | None:
        return self._answer("check_balance")

    def identity(self, request: Request) -> EngineIdentity:
        if error := self._answer("identity"):
            raise error
        return EngineIdentity(engine_id=self.engine_id, version="1")

    def open_enlarger(self, request: EnlargeRequest) -> Enlarging:
        if error := self._answer("work"):
            raise error
        raise AssertionError("no pixels in this test")


def error_of(name: str, engine: str, charged: bool = False) -> PipelineError:
    error = getattr(errors, name)(f"{engine} says {name}", "do something")
    error.charged = charged
    return error


def worked(toys: list[Toy], order: list[str]) -> Chosen:
    """Choose, do the work, and let the next engine take over as stages do."""
    among = {toy.engine_id: toy for toy in toys}
    chosen = choose(REQUEST, order, among)
    while (error := chosen.engine.wrong.get("work")) is not None:
        chosen = next_after(chosen, error, order, among)
    return chosen


faults = st.one_of(
    st.none(),
    st.tuples(
        st.sampled_from(WHERE),
        st.sampled_from((*PASSES, "DependencyMissingError", *ANSWERS)),
        st.booleans(),
    ),
)


@settings(max_examples=200)
@given(st.lists(faults, min_size=1, max_size=5), st.randoms())
def test_outages_and_refusals_end_in_the_right_engine_or_the_right_code(drawn, shuffled):
    toys: list[Toy] = []
    for place, fault in enumerate(drawn):
        toy = Toy(f"toy{place}")
        if fault is not None:
            where, name, charged = fault
            toy.wrong[where] = error_of(name, toy.engine_id, charged and where == "work")
        toys.append(toy)
    order = [toy.engine_id for toy in toys]
    present = list(toys)
    shuffled.shuffle(present)
    passed: list[tuple[str, str]] = []
    code, last = "", toys[-1]
    for toy, fault in zip(toys, drawn, strict=True):
        where, name, charged = fault or ("", "", False)
        code = getattr(errors, name).code if name else ""
        if not name or name in ANSWERS or (where == "work" and charged):
            last = toy  # it served, or its answer counts
            break
        passed.append((toy.engine_id, code))
    else:
        code = passed[0][1]
    if code:
        with pytest.raises(PipelineError) as caught:
            worked(present, order)
        assert caught.value.code == code
    else:
        chosen = worked(present, order)
        assert chosen.engine.engine_id == chosen.identity.engine_id == last.engine_id
        assert [(each.engine_id, each.code) for each in chosen.passed_over] == passed
        assert all(each.remedy == "do something" for each in chosen.passed_over)
    assert all(bool(toy.asked) == (at <= toys.index(last)) for at, toy in enumerate(toys))


def test_what_may_have_been_charged_is_not_asked_for_again():
    first, second = Toy("first"), Toy("second")
    first.wrong["work"] = error_of("EngineTimeoutError", "first", charged=True)
    with pytest.raises(errors.EngineTimeoutError, match="first says"):
        worked([first, second], ["first", "second"])
    assert second.asked == []


def test_the_error_of_all_names_each():
    toys = [Toy("near"), Toy("far")]
    for toy in toys:
        toy.wrong["health_check"] = error_of("EngineOfflineError", toy.engine_id)
    with pytest.raises(errors.EngineOfflineError, match=r"near says .* far: ENGINE_OFFLINE, far"):
        worked(toys, ["near", "far"])


def test_only_local_engines_serve_unnamed():
    local, remote = Toy("b_local", "local"), Toy("a_remote")
    among = {toy.engine_id: toy for toy in (local, remote)}
    assert choose(REQUEST, (), among).engine is local
    assert choose(REQUEST, ("a_remote",), among).engine is remote
    with pytest.raises(DependencyMissingError, match="Enlarges"):
        choose(REQUEST, (), {"a_remote": remote})


def test_engines_without_the_capability_are_not_asked():
    toy = Toy("toy", "local")
    with pytest.raises(DependencyMissingError, match="FindsFaces"):
        choose(FaceRequest(0.9), ("toy",), {"toy": toy})
    assert toy.asked == []


def test_an_order_with_an_engine_that_does_not_exist_is_refused():
    with pytest.raises(ContractMismatchError, match=r"'nowhere'.*toy"):
        choose(REQUEST, ("nowhere", "toy"), {"toy": Toy("toy")})


def test_the_folder_is_the_catalog():
    found = engines()
    assert {"diffusers", "mtcnn", "realesrgan", "rife"} <= set(found)
    assert isinstance(found, MappingProxyType)
    assert isinstance(found["realesrgan"], Enlarges)
    assert all(name == engine.engine_id for name, engine in found.items())
    refusal = found["realesrgan"].can(EnlargeRequest("blurry", 2, 64))
    assert refusal is not None
    assert refusal.code == "DEPENDENCY_MISSING"

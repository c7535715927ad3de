"""All engines of the installation as people look at them: state, version, balance, what they do."""

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from safelight.engines.choosing import engines
from safelight.engines.films import FilmRequest, Films
from safelight.engines.graphs import GraphRequest, RunsGraphs
from safelight.engines.instant_id import DrawsByInstantId, InstantIdRequest
from safelight.engines.interface import (
    AnimateRequest,
    Animates,
    ComputeRequest,
    Computes,
    DrawRequest,
    Draws,
    Engine,
    EngineType,
    EnlargeRequest,
    Enlarges,
    FaceRequest,
    FillRequest,
    Fills,
    FindsFaces,
    InterpolateRequest,
    Interpolates,
    LatentRequest,
    MixesLatents,
    RedrawRequest,
    Redraws,
    Refusal,
    Request,
)
from safelight.engines.judging import EmbedRequest, JudgesSafety, KnowsFaces, SafetyRequest
from safelight.engines.lips import LipsyncRequest, SyncsLips
from safelight.engines.remote.last_errors import LastError, last_error
from safelight.engines.remote.provider import RemoteEngine
from safelight.errors import PipelineError

State = Literal["ready", "not connected", "not installed", "offline", "refused", "no funds"]
_STATES: Mapping[str, State] = {
    "ENGINE_OFFLINE": "offline",
    "ENGINE_TIMEOUT": "offline",
    "RATE_LIMIT_EXCEEDED": "offline",
    "INSUFFICIENT_FUNDS": "no funds",
}
OFFERS: Mapping[type, tuple[str, Request]] = {
    Draws: ("text to image", DrawRequest(prompt="a heart", width=512, height=512)),
    Redraws: ("image to image", RedrawRequest(prompt="a heart", strength=0.5)),
    DrawsByInstantId: ("InstantID", InstantIdRequest(prompt="a sailor", width=512, height=512)),
    Fills: ("inpainting", FillRequest(prompt="a heart", strength=0.5)),
    MixesLatents: ("latent blend", LatentRequest()),
    Enlarges: ("upscaling", EnlargeRequest("photo", 2, 256)),
    Animates: ("image to video", AnimateRequest(seconds=3.0, fps=24)),
    Films: (
        "text to video",
        FilmRequest(
            still=DrawRequest(prompt="a heart", width=512, height=512), seconds=3.0, fps=24
        ),
    ),
    Interpolates: ("interpolation", InterpolateRequest(60)),
    FindsFaces: ("faces", FaceRequest(0.9)),
    KnowsFaces: ("whose face", EmbedRequest()),
    JudgesSafety: ("safety", SafetyRequest()),
    SyncsLips: ("lip sync", LipsyncRequest()),
    RunsGraphs: ("workflows", GraphRequest(workflow="", graph="{}")),
    Computes: ("arithmetic", ComputeRequest("1")),
}
"""Capabilities, what people call them, and an example of what is asked."""


class EngineState(BaseModel):
    """One engine."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    engine_id: str
    """Its name in presets and manifests."""
    engine_type: EngineType
    """remote ones cost money."""
    state: State
    """Whether it can serve now."""
    found: str = ""
    """Why it cannot."""
    remedy: str = ""
    """What would let it."""
    version: str = ""
    """Of its library or interface."""
    balance: str = ""
    """What the account has left; empty where nobody tells."""
    offers: tuple[str, ...] = ()
    """What it does."""
    last_error: LastError | None = None
    """Of its work, in any process of the installation."""


def engine_states() -> Iterator[EngineState]:
    """All engines by their ids, each asked now."""
    for name in sorted(engines()):
        yield engine_state(engines()[name])


def engine_state(engine: Engine) -> EngineState:
    """One engine, asked now."""
    asked = [each for kind, each in OFFERS.items() if isinstance(engine, kind)]
    serves = next((request for _, request in asked if engine.can(request) is None), None)
    request = serves or (asked[0][1] if asked else None)
    refusal, version = None, ""
    if request is not None:
        refusal, version = _asked(engine, request)
    remote = engine if isinstance(engine, RemoteEngine) else None
    balance = remote.standing().balance if remote is not None and remote.is_connected else None
    return EngineState(
        engine_id=engine.engine_id,
        engine_type=engine.engine_type,
        state=_state(engine, refusal),
        found="" if refusal is None else refusal.problem,
        remedy="" if refusal is None else refusal.remedy,
        version=remote.version if remote is not None else version,
        balance="" if balance is None else balance.shown,
        offers=tuple(words for words, _ in asked),
        last_error=last_error(engine.engine_id) if remote is not None else None,
    )


def _asked(engine: Engine, request: Request) -> tuple[Refusal | None, str]:
    try:
        refusal = (
            engine.can(request)
            or engine.health_check()
            or engine.verify_identity()
            or engine.check_balance(request)
        )
        return refusal, "" if refusal is not None else engine.identity(request).version
    except PipelineError as error:
        return error, ""


def _state(engine: Engine, refusal: Refusal | None) -> State:
    if refusal is None:
        return "ready"
    if refusal.code == "DEPENDENCY_MISSING":
        elsewhere = engine.engine_type == "remote" or isinstance(engine, RunsGraphs)
        return "not connected" if elsewhere else "not installed"
    return _STATES.get(refusal.code, "refused")

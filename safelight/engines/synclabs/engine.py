"""Sync Labs as an engine: mouths that move to a sound."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, cast

from pydantic import JsonValue, SecretStr

from safelight.engines.interface import Request
from safelight.engines.lips import Fidelity, LipsyncRequest, Written
from safelight.engines.remote.fetching import Source, fetched, own_of
from safelight.engines.remote.jobs import Looked, Wanted, run_job
from safelight.engines.remote.patience import patiently
from safelight.engines.remote.provider import (
    PROBE_SECONDS,
    Balance,
    RemoteEngine,
    digest_of,
    known_model,
)
from safelight.engines.remote.uploading import media_type_of, put_file
from safelight.engines.synclabs.calls import ENGINE_ID, TITLE, SyncCalls, head, place, refusal
from safelight.engines.work import Work, current_work, working
from safelight.errors import ContractMismatchError, DependencyMissingError
from safelight.media.video.stream import probe
from safelight.settings import settings

MODELS = {
    "lipsync-2": 0.05,
    "lipsync-2-pro": 0.0833,
    "lipsync-1.9.0-beta": 0.025,
    "react-1": 0.1667,
    "sync-3": 0.1333,
}
"""USD for a second, as the price list said in November 2026; asked for anew before each call."""
BY_FIDELITY: dict[Fidelity, str] = {
    "standard": "lipsync-2",
    "high": "lipsync-2-pro",
    "ultra": "sync-3",
}


class SyncLabs(RemoteEngine):
    """Asked under a key of ours, so that a generation is made and paid for once."""

    engine_id: ClassVar[str] = ENGINE_ID
    title: ClassVar[str] = TITLE
    variables: ClassVar[tuple[str, ...]] = ("SAFELIGHT_SYNCLABS_KEY",)
    version: ClassVar[str] = "v2+1"

    def keys(self) -> tuple[SecretStr | None, ...]:
        """The one key."""
        return (settings().synclabs_key,)

    def places(self) -> tuple[str, ...]:
        """The one address."""
        return (settings().synclabs_url,)

    def ask_standing(self) -> Balance | None:
        """It tells no balance; that it lists its models says that it takes the key.

        Raises:
            PipelineError: it does not answer, or does not know the key.
        """
        provider = self.provider()
        answer = provider.ask("GET", place("/v2/models"), head(), seconds=PROBE_SECONDS)
        if not answer.good:
            raise refusal(provider, answer)
        return None

    def price(self, request: Request) -> float:
        """Of one second: how long the clip is stands in no request."""
        return _model(request)[1]

    def sync_lips(
        self, request: LipsyncRequest, video: Path, sound: Path, job: str, folder: Path
    ) -> Written:
        """See `SyncsLips.sync_lips`.

        Raises:
            PipelineError: see `run_job`.
        """
        model, usd = _model(request)
        info = probe(video)
        seconds = float(info.frames / info.fps)
        calls = SyncCalls(self.provider(), lambda: self._prepared(model, video, sound))
        content = digest_of(request, [video.read_bytes(), sound.read_bytes()])
        spent: list[float] = []

        def estimated(sent: JsonValue) -> float:
            return self._estimated(sent, usd * seconds)

        def charged(looked: Looked) -> float:
            made = looked.told.get("outputDuration")
            spent.append(usd * (float(made) if isinstance(made, int | float) else seconds))
            return spent[-1]

        source = Source(TITLE, own_of(settings().synclabs_url))
        wanted = Wanted(model, content, estimated, charged)
        with working(Work(current_work().run, lambda: job)):
            (path,) = run_job(calls, wanted, lambda it: fetched(it, source, "video", folder))[:1]
        return Written(path, sum(spent))

    def _prepared(self, model: str, video: Path, sound: Path) -> JsonValue:
        shown = self._asset(video, "VIDEO")
        heard = self._asset(sound, "AUDIO")
        return {
            "model": model,
            "input": [{"type": "video", "assetId": shown}, {"type": "audio", "assetId": heard}],
            "options": {"sync_mode": "cut_off"},
        }

    def _asset(self, path: Path, kind: str) -> str:
        """Put a file among the account's assets; what they call it."""
        media_type = media_type_of(path)
        told = self._told(
            "/v2/assets/upload",
            {
                "fileName": f"{kind.lower()}{path.suffix}",
                "contentType": media_type,
                "size": path.stat().st_size,
            },
        )
        source = Source(TITLE, own_of(settings().synclabs_url))
        put_file(self.provider(), source, str(told.get("uploadUrl")), path, media_type)
        known = self._told("/v2/assets", {"url": told.get("url"), "type": kind})
        if not isinstance(known.get("id"), str):
            raise ContractMismatchError(f"{TITLE} names no asset for a file", "run it again later")
        return str(known["id"])

    def _told(self, path: str, body: dict[str, JsonValue]) -> Mapping[str, JsonValue]:
        """The answer to a question that costs nothing."""
        provider = self.provider()

        def asked() -> Mapping[str, JsonValue]:
            answer = provider.ask("POST", place(path), head(), body)
            if not answer.good:
                raise refusal(provider, answer)
            return answer.fields

        return patiently(asked)

    def _estimated(self, sent: JsonValue, otherwise: float) -> float:
        """What Sync Labs expects it to cost; by the price list where it does not say."""
        provider = self.provider()

        def asked() -> JsonValue:
            answer = provider.ask("POST", place("/v2/analyze/cost"), head(), sent)
            if answer.status == 429 or answer.status >= 500:
                raise refusal(provider, answer)
            return answer.told if answer.good else None

        told = patiently(asked)
        costs = [
            each.get("estimatedGenerationCost")
            for each in (told if isinstance(told, list) else ())
            if isinstance(each, dict)
        ]
        found = [cost for cost in costs if isinstance(cost, int | float)]
        return float(sum(cast("list[float]", found))) if found else otherwise


def _model(request: Request) -> tuple[str, float]:
    if not isinstance(request, LipsyncRequest):
        raise DependencyMissingError(f"{TITLE} moves lips alone", "name another engine")
    return known_model(request.model, MODELS, BY_FIDELITY[request.fidelity], TITLE)


ENGINE = SyncLabs()

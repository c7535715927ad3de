"""Kling as an engine: clips of pictures, and mouths that move to a sound."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue, SecretStr

from safelight.engines.interface import AnimateRequest, Request
from safelight.engines.kling.calls import (
    ENGINE_ID,
    TITLE,
    FaceCalls,
    KlingCalls,
    ask,
    require_good,
)
from safelight.engines.lips import LipsyncRequest, Written
from safelight.engines.remote.clips import Fetched, clip_of
from safelight.engines.remote.fetching import Source, fetched, own_of
from safelight.engines.remote.jobs import Looked, Wanted, run_job
from safelight.engines.remote.provider import (
    PROBE_SECONDS,
    Balance,
    RemoteEngine,
    digest_of,
    known_model,
    left_out,
    require_within,
)
from safelight.engines.remote.uploading import media_type_of, plain_text, png_of, require_size
from safelight.engines.results import Clip
from safelight.engines.work import Work, current_work, working
from safelight.errors import DependencyMissingError, InvalidMediaError
from safelight.media.video.stream import probe
from safelight.pixels import Pixels
from safelight.progress import note
from safelight.settings import settings
from safelight.store.store import current_store

DAY_MS = 24 * 3600 * 1000
LENGTHS = (5, 10)
"""Seconds of the clips that it makes."""
MODELS: dict[str, tuple[str, float]] = {
    "kling-v2-5-turbo": ("std", 1.5),
    "kling-v2-6": ("pro", 2.5),
    "kling-v2-1": ("std", 2.0),
}
"""Mode, and units of a resource pack for 5 s, as the price list said in November 2026."""
LIPS_UNITS, FACE_UNITS = 0.1, 0.5
"""Units for a second of a mouth that moves, and at the most for finding its face."""
LEAST_LIPS = 5.0
"""Seconds that are charged at the least."""
LARGEST_PICTURE, LARGEST_SOUND, LARGEST_CLIP = 10 * 2**20, 5 * 2**20, 100 * 2**20
LEAST_SIDE, WIDEST = 300, 2.5
CLIP_SECONDS = (2.0, 60.0)
LINK_SECONDS = 6 * 3600
"""For which Kling can fetch a clip from our bucket."""


class Kling(RemoteEngine):
    """Asked by tasks that have ids of ours."""

    engine_id: ClassVar[str] = ENGINE_ID
    title: ClassVar[str] = TITLE
    variables: ClassVar[tuple[str, ...]] = (
        "SAFELIGHT_KLING_ACCESS_KEY",
        "SAFELIGHT_KLING_SECRET_KEY",
    )
    version: ClassVar[str] = "v1+1"

    @property
    def usd_per_unit(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """By the settings."""
        return settings().kling_unit_usd

    def keys(self) -> tuple[SecretStr | None, ...]:
        """Both keys."""
        return settings().kling_access_key, settings().kling_secret_key

    def places(self) -> tuple[str, ...]:
        """The one address."""
        return (settings().kling_url,)

    def ask_standing(self) -> Balance | None:
        """What is left of the resource packs that count now; None where the account has none.

        Raises:
            PipelineError: it does not answer, or does not take our keys.
        """
        provider = self.provider()
        now = round(time.time() * 1000)
        path = f"/account/costs?start_time={now - 30 * DAY_MS}&end_time={now}"
        answer = ask(provider, "GET", path, seconds=PROBE_SECONDS)
        require_good(provider, answer)
        data = answer.fields.get("data")
        packs = data.get("resource_pack_subscribe_infos") if isinstance(data, dict) else None
        if not isinstance(packs, list):
            return None
        left = [
            float(pack.get("remaining_quantity") or 0)  # pyright: ignore[reportArgumentType]
            for pack in packs
            if isinstance(pack, dict) and pack.get("status") in ("online", "runOut", "expired")
        ]
        return Balance(sum(left), "units") if left else None

    def price(self, request: Request) -> float:
        """By units; of lip synchronisation the least that is charged."""
        if isinstance(request, AnimateRequest):
            _, (_, units) = known_model(request.model, MODELS, next(iter(MODELS)), TITLE)
            return units * _length(request) / LENGTHS[0] * self.usd_per_unit
        if isinstance(request, LipsyncRequest):
            if request.model is not None:
                raise DependencyMissingError(
                    f"{TITLE} has one model for lips, not {request.model[:80]!r}", "name none"
                )
            if not settings().store:
                raise DependencyMissingError(
                    f"{TITLE} fetches clips by an address, and a folder has none",
                    "set SAFELIGHT_STORE to a bucket that it can reach, or name another engine",
                )
            return (LIPS_UNITS * LEAST_LIPS + FACE_UNITS) * self.usd_per_unit
        raise DependencyMissingError(f"{TITLE} does no such work", "name another engine")

    def animate(self, request: AnimateRequest, image: Pixels) -> Clip:
        """See `Animates.animate`."""
        name, (mode, _) = known_model(request.model, MODELS, next(iter(MODELS)), TITLE)
        _require_picture(image)
        left_out(TITLE, seed=request.seed is not None)
        picture = png_of(image)
        require_size(len(picture), LARGEST_PICTURE, "the picture", TITLE)
        body: dict[str, JsonValue] = {
            "model_name": name,
            "mode": mode,
            "duration": str(_length(request)),
            "image": plain_text(picture),
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
        }
        calls = KlingCalls(self.provider(), "/v1/videos/image2video", body)
        price = self.price(request)
        wanted = Wanted(name, digest_of(request, [picture]), lambda _: price)
        return clip_of(TITLE, request, lambda folder: self._fetch(calls, wanted, folder))

    def sync_lips(
        self, request: LipsyncRequest, video: Path, sound: Path, job: str, folder: Path
    ) -> Written:
        """See `SyncsLips.sync_lips`; the face that is shown longest speaks.

        Raises:
            PipelineError: see `run_job`.
        """
        info = probe(video)
        seconds = float(info.frames / info.fps)
        require_within("the clip's length in seconds", seconds, *CLIP_SECONDS, TITLE)
        require_size(video.stat().st_size, LARGEST_CLIP, "the clip", TITLE)
        require_size(sound.stat().st_size, LARGEST_SOUND, "the sound", TITLE)
        heard = sound.read_bytes()
        content = digest_of(request, [video.read_bytes(), heard])
        spent: list[float] = []

        def charged(looked: Looked) -> float | None:
            spent.append(looked.charged_usd or 0.0)
            return looked.charged_usd

        with working(Work(current_work().run, lambda: job)):
            face = self._face(video, content)
            if face["faces"] != "1":
                note(f"{TITLE} found {face['faces']} faces: the one that is shown longest speaks")
            usd = LIPS_UNITS * max(LEAST_LIPS, math.ceil(seconds)) * self.usd_per_unit
            calls = KlingCalls(
                self.provider(), "/v1/videos/advanced-lip-sync", _spoken(face, heard, seconds)
            )
            wanted = Wanted("advanced-lip-sync", content, lambda _: usd, charged)
            source = Source(TITLE, own_of(settings().kling_url))
            (path,) = run_job(calls, wanted, lambda it: fetched(it, source, "video", folder))[:1]
        return Written(path, sum(spent))

    def _face(self, video: Path, content: str) -> Mapping[str, str]:
        stored = current_store().put(video, media_type_of(video))
        current_store().settle()
        calls = FaceCalls(self.provider(), current_store().link(stored, LINK_SECONDS))
        usd = FACE_UNITS * self.usd_per_unit
        wanted = Wanted("identify-face", content, lambda _: usd)
        told = run_job(calls, wanted, lambda job: job.finished().told)
        return {name: str(value) for name, value in told.items()}

    def _fetch(self, calls: KlingCalls, wanted: Wanted, folder: Path) -> Fetched:
        source = Source(TITLE, own_of(settings().kling_url))
        (path,) = run_job(calls, wanted, lambda job: fetched(job, source, "video", folder))[:1]
        return path


def _spoken(face: Mapping[str, str], heard: bytes, seconds: float) -> dict[str, JsonValue]:
    """The sound laid onto the face from where it is first seen, at its own loudness."""
    return {
        "session_id": face["session"],
        "face_choose": [
            {
                "face_id": face["face"],
                "sound_file": plain_text(heard),
                "sound_start_time": 0,
                "sound_end_time": round(seconds * 1000),
                "sound_insert_time": round(float(face["start"])),
                "sound_volume": 1,
                "original_audio_volume": 0,
            }
        ],
    }


def _length(request: AnimateRequest) -> int:
    require_within("duration", request.seconds, 0, LENGTHS[-1], TITLE)
    return next(seconds for seconds in LENGTHS if seconds >= request.seconds)


def _require_picture(image: Pixels) -> None:
    height, width = image.shape[:2]
    if min(height, width) < LEAST_SIDE or not 1 / WIDEST <= width / height <= WIDEST:
        raise InvalidMediaError(
            f"the picture has {width}x{height} px, {TITLE} takes {LEAST_SIDE} px a side at least, "
            f"and at most {WIDEST:g} times as wide as high or the other way round",
            "crop or enlarge it",
        )


ENGINE = Kling()

"""Providers in flows: presets fall down their orders, manifests say who served and what it cost."""

import logging
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.image_to_video_v1 import image_to_video_v1
from flows.lipsync import lipsync
from flows.photoreal_portrait_v1 import photoreal_portrait_v1
from flows.storyboard_builder_v1 import storyboard_builder_v1
from flows.talking_clip_v1 import talking_clip_v1
from flows.ugc_clip_builder_v1 import ugc_clip_builder_v1
from flows.upscale_deflicker_video_v1 import upscale_deflicker_video_v1
from flows.upscale_denoise_image_v1 import upscale_denoise_image_v1
from presets.base.catalog import find_preset, preset_ids
from safelight.client.page import _row, _served
from safelight.engines.choosing import choose, engines
from safelight.engines.interface import AnimateRequest, DrawRequest, EnlargeRequest, Request
from safelight.engines.lips import LipsyncRequest
from safelight.errors import InsufficientFundsError, InvalidMediaError, PipelineError
from safelight.media.fitting import resized
from safelight.media.video.stream import probe
from safelight.provenance.manifest import Manifest, RunResult, load_manifest
from safelight.settings import settings
from safelight.store.store import current_store
from tests.engines.remote import fal_server, kling_server, runware_server, sync_server
from tests.engines.remote.connected import SECRETS, connected, forget_standing
from tests.engines.remote.fal_server import Fal
from tests.engines.remote.kling_server import Kling
from tests.engines.remote.providing import SIGNATURE, picture
from tests.engines.remote.runware_server import Runware
from tests.engines.remote.servers import fal, fresh_standing, kling, runware, sync
from tests.engines.remote.sync_server import Sync
from tests.media.clips import write_video
from tests.sounds import write_tone
from tests.talking import lips

__all__ = ["fal", "fresh_standing", "kling", "runware", "sync"]
pytestmark = pytest.mark.usefixtures("server", "volume")
AWAY = "http://127.0.0.1:9"
DRAWN = {"model": "fal-ai/flux/dev", "width": 64, "height": 64}
REQUESTS: dict[str, Request] = {
    "provider_fal": DrawRequest(prompt="x", width=512, height=512),
    "provider_runware": EnlargeRequest("photo", 2, 256),
    "provider_kling": AnimateRequest(seconds=3, fps=24),
    "provider_synclabs": LipsyncRequest(),
}


@pytest.fixture
def given(volume: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> dict[str, str]:
    """A picture, a clip in which a face moves a little, and a sound as long."""
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    folder = volume / "uploads"
    folder.mkdir(parents=True)
    Image.fromarray(resized(photo[:256, 100:356], 320, 320)).save(folder / "face.png")
    Image.fromarray(photo[60:76, 200:216]).save(folder / "small.png")
    frames = (resized(photo[:256, 100 + at : 356 + at], 64, 64) for at in range(8))
    write_video(folder / "clip.mp4", frames, Fraction(8))
    write_tone(folder / "said.wav", 1.0)
    return {"video": "uploads/clip.mp4", "audio": "uploads/said.wav"}


def manifest_of(result: RunResult) -> Manifest:
    return load_manifest(str(result.data["manifest"]))


def passed_over(manifest: Manifest) -> list[tuple[str, str]]:
    return [(each.engine_id, each.code) for each in manifest.stages[0].passed_over]


def test_the_first_is_away_the_second_has_no_money_a_third_serves(
    given: dict[str, str], kling: Kling, fal: Fal, monkeypatch: pytest.MonkeyPatch
):
    connected(monkeypatch, kling, fal, SAFELIGHT_KLING_URL=AWAY)
    fal.balance = 0.0
    result = image_to_video_v1(image="uploads/face.png", quality="low", duration=2, seed=1)
    manifest = manifest_of(result)
    assert passed_over(manifest) == [
        ("provider_kling", "ENGINE_OFFLINE"),
        ("provider_fal", "INSUFFICIENT_FUNDS"),
        ("diffusers", "DEPENDENCY_MISSING"),
    ]
    (entry,) = manifest.stages
    assert entry.engine.engine_id == "local_motion"
    assert "not provider_fal: INSUFFICIENT_FUNDS" in _served(entry)
    assert manifest.cost_usd == 0
    assert kling.accepted == fal.accepted == []


def test_a_provider_that_has_no_money_when_it_is_asked_passes_the_work_on(
    given: dict[str, str], kling: Kling, fal: Fal
):
    kling.packs = False
    used_up = '429:{"code": 1102, "message": "depleted"}'
    kling.fault("POST", "/v1/videos/image2video", used_up)
    fal.result = kling.result
    result = image_to_video_v1(image="uploads/face.png", quality="low", duration=2, seed=1)
    manifest = manifest_of(result)
    assert passed_over(manifest) == [("provider_kling", "INSUFFICIENT_FUNDS")]
    (entry,) = manifest.stages
    assert entry.engine.engine_id == "provider_fal"
    (charge,) = entry.charges
    assert (charge.engine_id, charge.remote_id) == ("provider_fal", fal.accepted[0])
    assert charge.charged_usd == pytest.approx(6 * 0.045)
    assert manifest.cost_usd == result.data["cost_usd"] == pytest.approx(0.27)
    shown = _row(entry)["notes"]
    assert "provider_fal charged 0.2700 USD for fal-ai/minimax/hailuo-02" in shown.replace("\\", "")
    for known_before in (False, True):  # that it has none
        if known_before:
            kling.packs, kling.balance = True, 0.0
            forget_standing()
        else:
            kling.fault("POST", "/v1/videos/image2video", used_up)
        again = image_to_video_v1(image="uploads/face.png", quality="low", duration=2, seed=1)
        assert again.results[0].sha256 == result.results[0].sha256
        (entry,) = manifest_of(again).stages
        assert entry.status == ("cached" if known_before else "done")
        assert manifest_of(again).cost_usd == 0
        assert len(fal.accepted) == 1


def test_a_portrait_is_drawn_elsewhere_where_this_machine_has_no_such_model(
    given: dict[str, str], fal: Fal
):
    fal.result = (picture(), "image/png")
    manifest = manifest_of(
        photoreal_portrait_v1(prompt="a man", quality="low", seed=3, overrides={"generate": DRAWN})
    )
    assert passed_over(manifest) == [
        ("diffusers", "DEPENDENCY_MISSING"),
        ("local_comfy", "DEPENDENCY_MISSING"),
    ]
    assert manifest.stages[0].engine.engine_id == "provider_fal"
    assert "fal takes no negative prompt: it took no part" in manifest.stages[0].notes
    (sent,) = fal.inputs.values()
    assert (sent["seed"], sent["num_inference_steps"], sent["guidance_scale"]) == (3, 25, 6.5)
    board = manifest_of(
        storyboard_builder_v1(
            prompt_template="shot {shot_number}",
            shot_count=2,
            quality="low",
            seed=3,
            overrides={"generate": DRAWN},
        )
    )
    assert board.cost_usd == pytest.approx(2 * 0.025)


def test_a_picture_is_enlarged_by_a_provider_and_here_where_it_is_away(
    given: dict[str, str], runware: Runware, monkeypatch: pytest.MonkeyPatch
):
    runware.result = (picture(32, 32), "image/png")
    first = manifest_of(upscale_denoise_image_v1(image="uploads/small.png", quality="low"))
    assert first.stages[-1].engine.engine_id == "provider_runware"
    assert first.cost_usd == 0.0013
    runware.balance = 0.0
    forget_standing()
    second = manifest_of(upscale_denoise_image_v1(image="uploads/small.png", quality="standard"))
    assert second.stages[-1].engine.engine_id == "realesrgan"
    assert [each.code for each in second.stages[-1].passed_over] == ["INSUFFICIENT_FUNDS"]


def test_a_video_is_enlarged_whole_with_its_times_and_sound_kept(
    given: dict[str, str], runware: Runware, tmp_path: Path
):
    larger = tmp_path / "larger.mp4"
    frames = (np.full((128, 128, 3), 20 * at, np.uint8) for at in range(8))
    write_video(larger, frames, Fraction(8))
    runware.result = (larger.read_bytes(), "video/mp4")
    small = {"upscale": {"texture": 0}}
    called = {"video": given["video"], "quality": "low", "overrides": small}
    manifest = manifest_of(upscale_deflicker_video_v1(**called))
    entry = manifest.stages[-1]
    assert (entry.stage_type, entry.engine.engine_id) == ("upscale", "provider_runware")
    assert manifest.cost_usd == 0.0013
    info = probe(current_store().fetch(manifest.results[0]))
    assert (info.width, info.height, info.frames, info.fps) == (128, 128, 8, 8)
    (task,) = runware.tasks.values()
    assert runware.stored[task["inputs"]["video"]].startswith("data:video/mp4;base64,")
    short = tmp_path / "short.mp4"
    write_video(short, (np.zeros((128, 128, 3), np.uint8) for _ in range(7)), Fraction(8))
    runware.result = (short.read_bytes(), "video/mp4")
    with pytest.raises(InvalidMediaError, match="7 frames for 8"):
        upscale_deflicker_video_v1(**{**called, "overrides": {"upscale": {"texture": 0.1}}})


@pytest.mark.parametrize("flow", [talking_clip_v1, lipsync])
def test_a_mouth_moves_where_a_key_is_set(given: dict[str, str], sync: Sync, flow: object):
    manifest = manifest_of(flow(**given))  # type: ignore[operator]
    (entry,) = manifest.stages
    assert entry.engine.engine_id == "provider_synclabs"
    assert manifest.cost_usd == pytest.approx(0.0833 if flow is talking_clip_v1 else 0.05)
    (sent,) = [each for each in sync.bodies if isinstance(each, dict) and "model" in each][-1:]
    assert sent["model"] == ("lipsync-2-pro" if flow is talking_clip_v1 else "lipsync-2")
    kinds = {kind for path, (_, kind) in sync.files.items() if "asset" in path}
    assert kinds == {"video/mp4", "audio/wav"}


@pytest.mark.slow
def test_parts_of_a_clip_are_paid_by_the_whole(
    given: dict[str, str], sync: Sync, kling: Kling, monkeypatch: pytest.MonkeyPatch
):
    run = {"product_image": "uploads/face.png", "prompt": "a mug", "audio": given["audio"]}
    small = {"clip": {"overrides": {"animate": {"duration": 2, "fps": 24}}}}
    result = ugc_clip_builder_v1(**run, quality="pro", seed=1, overrides=small)
    manifest = manifest_of(result)
    paid = {entry.engine.engine_id: entry.charges for entry in manifest.stages if entry.charges}
    assert set(paid) == {"provider_kling", "provider_synclabs"}
    assert manifest.cost_usd == pytest.approx(0.21 + 0.05, abs=0.2)
    costs = list((settings().volume_root / "outputs/costs/runs").iterdir())
    assert [each.name for each in costs] == [manifest.flow_run_id]


@pytest.mark.parametrize(
    "preset_id", [p for p in preset_ids() if "provider" in str(find_preset(p).engines)]
)
def test_each_preset_falls_down_its_order(
    preset_id: str,
    fal: Fal,
    runware: Runware,
    kling: Kling,
    sync: Sync,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    order = find_preset(preset_id).engines
    providers = [name for name in order if name.startswith("provider_")]
    connected(monkeypatch, fal, runware, kling, sync, SAFELIGHT_STORE="s3://bucket")
    addresses = {
        "provider_fal": "SAFELIGHT_FAL_API_URL",
        "provider_runware": "SAFELIGHT_RUNWARE_URL",
        "provider_kling": "SAFELIGHT_KLING_URL",
        "provider_synclabs": "SAFELIGHT_SYNCLABS_URL",
    }
    request = REQUESTS[providers[0]]
    if "talking" in preset_id or "ugc" in preset_id:
        request = LipsyncRequest()
    with lips(tmp_path):
        there = dict(engines())
        usual = choose(request, providers, there)
        assert (usual.engine.engine_id, usual.tried) == (providers[0], ())
        monkeypatch.setenv(addresses[providers[0]], AWAY)
        settings.cache_clear()
        fal.balance = runware.balance = kling.balance = 0.0
        forget_standing()
        served = choose(request, order, there) if len(providers) > 1 else None
        last = choose(request, [*providers, *(n for n in order if n not in providers)], there)
    assert [each.code for each in last.passed_over][:2] == (
        ["ENGINE_OFFLINE", "INSUFFICIENT_FUNDS"][: len(providers)]
        if last.engine.engine_type == "local"
        else ["ENGINE_OFFLINE"]
    )
    assert last.engine.engine_id not in providers
    assert served is None or served.engine is last.engine


def test_a_budget_of_a_run_stops_it_before_the_call(
    given: dict[str, str], sync: Sync, monkeypatch: pytest.MonkeyPatch
):
    connected(monkeypatch, sync, SAFELIGHT_BUDGET_RUN_USD="0.01")
    with pytest.raises(InsufficientFundsError, match="in one run"):
        lipsync(**given)
    assert sync.accepted == []


@pytest.mark.slow
def test_no_key_is_anywhere(
    given: dict[str, str],
    fal: Fal,
    runware: Runware,
    kling: Kling,
    sync: Sync,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
):
    """Keys are used, echoed in refusals, and looked for in all that was left."""
    logging.getLogger().setLevel(logging.DEBUG)
    for name in ("httpx", "httpcore", "safelight"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    said: list[str] = []

    def tried(act: object) -> None:
        try:
            said.append(str(act().data))  # type: ignore[operator]
        except PipelineError as error:
            said.append(f"{error!r} {error}")

    def all_four(seed: int) -> None:
        picture_of = {"image": "uploads/face.png", "quality": "low", "duration": 2}
        tried(lambda: image_to_video_v1(**picture_of, seed=seed))
        tried(lambda: lipsync(**given, fidelity="high" if seed else "standard"))
        tried(
            lambda: photoreal_portrait_v1(
                prompt="a man", quality="low", seed=seed, overrides={"generate": DRAWN}
            )
        )
        tried(lambda: upscale_denoise_image_v1(image="uploads/small.png", quality="low"))

    with caplog.at_level(logging.DEBUG):
        all_four(0)
        assert len(fal.accepted) == len(kling.accepted) == len(sync.accepted) == 1
        seen = f"at https://x.org/y?signature={SIGNATURE}"
        told = f"bad key {fal_server.KEY} {seen}"
        fal.fault("POST", "/fal-ai", f'422:{{"detail": "{told}"}}')
        told = f"{kling_server.ACCESS} {kling_server.SECRET} {seen}"
        kling.fault("POST", "/v1/videos", f'400:{{"code": 1201, "message": "{told}"}}')
        sync.fault("POST", "/v2/generate", f'400:{{"message": "{sync_server.KEY} {seen}"}}')
        told = f"{runware_server.KEY} {seen}"
        runware.error = {"code": "invalidThing", "message": told}
        all_four(1)
    assert sum("***" in text for text in said) >= 3
    looked_for = re.compile("|".join(re.escape(secret) for secret in SECRETS).encode())
    assert looked_for.search(sync.headers[-1]["x-api-key"].encode())  # it finds them
    assert not looked_for.search("\n".join(said).encode())
    assert not looked_for.search(caplog.text.encode())
    roots = [tmp_path, settings().volume_root, *tmp_path_factory.getbasetemp().glob("server*")]
    files = [path for root in roots for path in root.rglob("*") if path.is_file()]
    assert any(path.suffix.startswith(".db") for path in files)
    assert any("manifests" in str(path) for path in files)
    assert any("cache/jobs" in str(path) for path in files)
    assert [path for path in files if looked_for.search(path.read_bytes())] == []

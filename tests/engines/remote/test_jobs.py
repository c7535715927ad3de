"""Work at providers, against servers that speak their protocols, with faults."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safelight import errors
from safelight.engines.choosing import engines
from safelight.engines.interface import AnimateRequest, RedrawRequest
from safelight.engines.lips import LipsyncRequest
from safelight.engines.remote.spending import DAYS, spent, spent_by, today
from safelight.engines.work import current_work
from safelight.errors import PipelineError
from safelight.progress import StopReason, StopRequestedError, clear_stop, request_stop, watching
from tests.engines.remote.acts import (
    DRAW,
    LARGE,
    SMALL,
    as_work,
    fal_draws,
    kling_animates,
    runware_enlarges,
    sync_speaks,
)
from tests.engines.remote.connected import connected
from tests.engines.remote.fal_server import Fal
from tests.engines.remote.kling_server import Kling
from tests.engines.remote.providing import Served, clip
from tests.engines.remote.runware_server import COST, Runware
from tests.engines.remote.sync_server import Sync
from tests.sounds import write_tone


@pytest.fixture(params=["fal", "runware", "kling", "sync"])
def case(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[Served, Callable[[], object], str]:
    """A provider, something that it does, and where that is sent."""
    server = request.getfixturevalue(request.param)
    acts: dict[str, tuple[Callable[[], object], str]] = {
        "fal": (fal_draws, "/fal-ai/flux/dev"),
        "runware": (runware_enlarges, "/v1"),
        "kling": (kling_animates, "/v1/videos/image2video"),
        "sync": (lambda: sync_speaks(tmp_path), "/v2/generate"),
    }
    return server, *acts[request.param]


Case = tuple[Served, Callable[[], object], str]


def test_work_is_sent_once_followed_and_paid(case: Case):
    server, act, _ = case
    (charge,) = as_work("w", act).values()
    assert len(server.accepted) == 1
    assert charge.charged_usd is not None
    assert charge.charged_usd > 0
    assert spent_by("run-1") == pytest.approx(charge.usd)
    assert spent(f"{DAYS}{today()}/") == pytest.approx(charge.usd)


def test_a_second_try_goes_on_with_the_same_job(case: Case):
    server, act, _ = case
    for _ in range(3):
        charges = as_work("w", act)
        assert len(charges) == 1
    assert len(server.accepted) == 1
    as_work("other", act)
    assert len(server.accepted) == 2


def test_a_reply_that_is_lost_after_the_submit_is_never_sent_as_new(case: Case):
    server, act, where = case
    server.fault("POST", where, "lost")
    if isinstance(server, Fal):
        for _ in range(2):  # nor is it when the work is taken up again
            with pytest.raises(PipelineError, match="nobody knows whether") as caught:
                as_work("w", act)
            assert (caught.value.code, caught.value.charged) == ("UNKNOWN_ERROR", True)
            assert not caught.value.transient
            assert "to fal-ai/flux/dev" in str(caught.value)
    else:
        as_work("w", act)
    assert len(server.accepted) == 1
    assert spent_by("run-1") > 0


def test_a_reply_whose_head_came_names_the_request_of_fal(fal: Fal):
    fal.fault("POST", "/fal-ai/flux/dev", "half")
    as_work("w", fal_draws)
    assert len(fal.accepted) == 1


def test_what_never_arrived_is_sent_again_where_the_provider_knows_our_id(case: Case):
    server, act, where = case
    server.fault("POST", where, "drop")
    if isinstance(server, Fal):
        with pytest.raises(PipelineError, match="nobody knows whether"):
            as_work("w", act)
        assert server.accepted == []
    else:
        as_work("w", act)
        assert len(server.accepted) == 1


@pytest.mark.parametrize("status", ["502", "503"])
def test_a_gateway_that_answers_for_the_provider_leaves_the_outcome_open(case: Case, status: str):
    server, act, where = case
    server.fault("POST", where, status)
    if isinstance(server, Fal):
        with pytest.raises(PipelineError, match="nobody knows whether"):
            as_work("w", act)
    else:
        as_work("w", act)
        assert len(server.accepted) == 1


def test_bursts_of_429_are_waited_out(case: Case):
    server, act, where = case
    server.fault("POST", where, *["429:{}|0"] * 5)
    as_work("w", act)
    assert len(server.accepted) == 1
    assert spent_by("run-1") > 0


def test_who_asks_to_slow_down_for_too_long_is_told_apart_and_costs_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch
):
    server, act, where = case
    connected(monkeypatch, server, SAFELIGHT_PROVIDER_PATIENCE_SECONDS="0.1")
    server.fault("POST", where, *["429:{}|60"] * 50)
    with pytest.raises(errors.RateLimitExceededError) as caught:
        as_work("w", act)
    assert not caught.value.charged
    assert spent_by("run-1") == 0
    assert server.accepted == []


def test_faults_while_it_is_followed_and_fetched_are_waited_out(case: Case):
    server, act, where = case
    media = ["half", "500", "half", "429:{}|0", "-"]
    server.fault("GET", "/media/", *media)
    polls = ["-", "500", "503", "lost", "429:{}|0"]
    server.fault("POST" if where == "/v1" else "GET", where if where == "/v1" else "/", *polls)
    as_work("w", act)
    assert len(server.accepted) == 1


@pytest.mark.parametrize(
    ("wrong", "code", "says"),
    [
        ("5gb", "INVALID_FIELD_VALUE", "more than"),
        ("endless", "INVALID_FIELD_VALUE", "more than"),
        ("html", "INVALID_FIELD_VALUE", "text/html"),
        ("redirect http://127.0.0.1:1/admin", "PERMISSION_DENIED", "private network"),
        ("redirect http://169.254.169.254/latest/meta-data", "PERMISSION_DENIED", "private"),
        ("redirect http://[::1]:1/x", "PERMISSION_DENIED", "private"),
        ("redirect file:///etc/passwd", "DOWNLOAD_FAILED", "no address"),
    ],
)
def test_a_result_that_is_not_what_it_should_be_is_refused(
    fal: Fal, monkeypatch: pytest.MonkeyPatch, wrong: str, code: str, says: str
):
    from safelight.engines.remote import fetching

    monkeypatch.setitem(fetching.LARGEST, "image", 3 * 2**20)
    fal.fault("GET", "/media/", wrong)
    with pytest.raises(PipelineError, match=says) as caught:
        as_work("w", fal_draws)
    assert (caught.value.code, caught.value.charged) == (code, True)
    assert len(fal.accepted) == 1
    as_work("w", fal_draws)  # the job is there: once the fault is mended it is fetched
    assert len(fal.accepted) == 1


def test_links_that_have_expired_are_asked_for_anew(case: Case):
    server, act, _ = case
    server.fault("GET", "/media/", "403:{}")
    as_work("w", act)
    assert len(server.accepted) == 1
    server.fault("GET", "/media/", *["410:{}"] * 9)
    with pytest.raises(errors.DownloadFailedError, match="lead nowhere") as caught:
        as_work("w", act)
    assert caught.value.charged


def test_a_result_that_cannot_be_decoded_is_refused(case: Case):
    server, act, _ = case
    server.result = (b"no such thing" * 100, server.result[1])
    with pytest.raises(errors.InvalidMediaError):
        as_work("w", act)


def test_addresses_of_others_get_no_key(fal: Fal):
    fal.strange_urls = "http://evil.example.org"
    as_work("w", fal_draws)
    assert len(fal.accepted) == 1


def test_an_upload_goes_to_no_private_address(fal: Fal, monkeypatch: pytest.MonkeyPatch):
    place = '200:{"upload_url": "http://169.254.169.254/x", "file_url": "http://a.b/x"}'
    fal.fault("POST", "/storage/upload", place)
    request = RedrawRequest(prompt="x", strength=0.5, seed=1)
    with pytest.raises(errors.ForbiddenPathError, match="private network"):
        as_work("w", lambda: engines()["provider_fal"].redraw(request, SMALL))
    assert fal.accepted == []


def test_pictures_travel_by_the_storage_of_the_provider(fal: Fal):
    request = RedrawRequest(prompt="x", strength=0.5, seed=1)
    as_work("w", lambda: engines()["provider_fal"].redraw(request, SMALL))
    (sent,) = fal.inputs.values()
    content, kind = fal.files[sent["image_url"].removeprefix(fal.url)]
    assert content.startswith(b"\x89PNG")
    assert kind == "image/png"
    assert sent["strength"] == 0.5


def test_each_picture_has_a_seed_of_its_own(fal: Fal):
    made = engines()["provider_fal"].draw(replace(DRAW, num_images=3))
    assert len(made.pixels) == 3
    assert [each["seed"] for each in fal.inputs.values()] == [7, 8, 9]
    assert {each["num_images"] for each in fal.inputs.values()} == {1}


def test_what_a_provider_is_told_it_has_charged_counts(runware: Runware):
    (charge,) = as_work("w", runware_enlarges).values()
    assert charge.charged_usd == COST
    assert charge.estimated_usd > COST


def test_units_of_a_pack_are_money(kling: Kling):
    (charge,) = as_work("w", kling_animates).values()
    assert charge.charged_usd == pytest.approx(1.5 * 0.14)


def test_a_clip_that_is_longer_than_asked_is_trimmed_and_says_so(kling: Kling, tmp_path: Path):
    kling.result = (clip(tmp_path, seconds=5), "video/mp4")
    request = AnimateRequest(seconds=2, fps=8, prompt="waves")
    with watching(None) as notes:
        made = engines()["provider_kling"].animate(request, LARGE)
        frames = list(made.frames)
    assert len(frames) == 17
    assert any("made 5.00 s, 2 s were asked for" in note for note in notes)
    (sent,) = kling.tasks.values()
    assert sent["duration"] == "5"


@pytest.mark.parametrize("ahead", [-7200.0, -20.0, 20.0, 7200.0])
def test_a_clock_that_is_wrong_does_not_matter(kling: Kling, ahead: float):
    kling.ahead = ahead
    as_work("w", kling_animates)
    assert len(kling.accepted) == 1
    refused = [told for told in kling.headers if "authorization" not in told]
    assert len(refused) <= len(kling.files) + 1


def test_cancelling_a_run_cancels_its_job_where_that_is_possible(case: Case):
    server, act, _ = case
    server.polls = 10**6
    server.on_event = lambda event: (
        request_stop(StopReason.CANCEL) if len(server.asked) > 12 else None
    )
    try:
        with watching(None) as notes, pytest.raises(StopRequestedError):
            as_work("w", act)
    finally:
        clear_stop()
    if isinstance(server, Fal):
        assert server.cancelled == server.accepted
    else:
        assert any("goes on at the provider" in note for note in notes)


def test_a_run_that_goes_on_elsewhere_leaves_its_job_alone(fal: Fal):
    fal.polls = 10**6
    fal.on_event = lambda event: request_stop(StopReason.RESCHEDULE) if len(fal.asked) > 6 else None
    try:
        with pytest.raises(StopRequestedError):
            as_work("w", fal_draws)
    finally:
        clear_stop()
    assert fal.cancelled == []
    fal.polls, fal.on_event = 1, lambda event: None
    as_work("w", fal_draws)
    assert len(fal.accepted) == 1


def test_work_that_takes_too_long_is_given_up(case: Case, monkeypatch: pytest.MonkeyPatch):
    server, act, _ = case
    server.polls = 10**6
    connected(monkeypatch, server, SAFELIGHT_PROVIDER_WAIT_SECONDS="0.2")
    with pytest.raises(errors.EngineTimeoutError) as caught:
        as_work("w", act)
    assert caught.value.charged


@pytest.mark.parametrize("budget", ["RUN", "DAY"])
def test_a_budget_refuses_before_the_call(case: Case, monkeypatch: pytest.MonkeyPatch, budget: str):
    server, act, _ = case
    (first,) = as_work("first", act).values()
    spent_first = spent_by("run-1")
    enough = max(first.usd, first.estimated_usd) * 1.05
    limit = {f"SAFELIGHT_BUDGET_{budget}_USD": str(enough)}
    connected(monkeypatch, server, **limit)
    with pytest.raises(errors.InsufficientFundsError, match=f"in one {budget.lower()}") as caught:
        as_work("second", act)
    assert not caught.value.charged
    assert len(server.accepted) == 1
    assert spent_by("run-1") == pytest.approx(spent_first)
    if budget == "RUN":
        as_work("second", act, run="run-2")
        assert len(server.accepted) == 2


def kling_speaks(tmp_path: Path) -> object:
    video, sound, made = tmp_path / "said.mp4", tmp_path / "said.wav", tmp_path / "made"
    if not video.exists():
        video.write_bytes(clip(tmp_path, seconds=2.5))
        write_tone(sound, 1.0)
    made.mkdir(exist_ok=True)
    name = current_work().name()
    engine = engines()["provider_kling"]
    return engine.sync_lips(LipsyncRequest(), video, sound, name, made)


def test_kling_finds_the_face_and_then_moves_its_lips(kling: Kling, tmp_path: Path):
    kling.faces = 2
    with watching(None) as notes:
        charges = as_work("w", lambda: kling_speaks(tmp_path))
    assert len(kling.accepted) == len(charges) == 2
    assert any("found 2 faces" in note for note in notes)
    (spoken,) = kling.tasks.values()
    (chosen,) = spoken["face_choose"]
    assert (spoken["session_id"], chosen["face_id"], chosen["sound_end_time"]) == ("s-1", "0", 2500)
    as_work("w", lambda: kling_speaks(tmp_path))
    assert len(kling.accepted) == 2


def test_a_search_for_a_face_whose_answer_is_lost_is_not_sent_again(kling: Kling, tmp_path: Path):
    kling.fault("POST", "/v1/videos/identify-face", "lost")
    for _ in range(2):
        with pytest.raises(PipelineError, match="nobody knows whether"):
            as_work("w", lambda: kling_speaks(tmp_path))
    assert len(kling.accepted) == 1


def test_a_clip_without_a_face_is_an_answer(kling: Kling, tmp_path: Path):
    kling.faces = 0
    with pytest.raises(errors.InvalidFieldValueError, match="no face") as caught:
        as_work("w", lambda: kling_speaks(tmp_path))
    assert caught.value.charged


@pytest.mark.parametrize("told", [True, False])
def test_sync_labs_may_not_know_the_outcome_itself(sync: Sync, tmp_path: Path, told: bool):
    as_work("before", lambda: sync_speaks(tmp_path))
    known = ', "generationId": "generation-3"' if told else ""
    code = f'409:{{"errorCode": "IDEMPOTENCY_OUTCOME_UNKNOWN"{known}}}'
    sync.fault("POST", "/v2/generate", code)
    if told:
        as_work("w", lambda: sync_speaks(tmp_path))
        return
    for _ in range(2):
        with pytest.raises(PipelineError, match="does not know what became") as caught:
            as_work("w", lambda: sync_speaks(tmp_path))
        assert caught.value.charged
    assert len(sync.accepted) == 1


UNSAFE = {"detail": [{"loc": ["prompt"], "msg": "no", "type": "content_policy_violation"}]}


@pytest.mark.parametrize("error", [(422, UNSAFE), (200, {"has_nsfw_concepts": [True]})])
def test_what_is_not_safe_is_charged_and_never_tried_again(fal: Fal, error: tuple[int, object]):
    fal.error = error
    for _ in range(2):
        with pytest.raises(PipelineError) as caught:
            as_work("w", fal_draws)
        assert (caught.value.code, caught.value.charged) == ("SAFETY_FILTER", True)
        assert not caught.value.transient
    assert len(fal.accepted) == 1
    assert spent_by("run-1") == 0.025


def test_a_fault_of_the_provider_costs_nothing_and_the_next_try_is_a_new_job(fal: Fal):
    fal.error = (503, {"detail": "x", "error_type": "runner_disconnected"})
    with pytest.raises(errors.EngineOfflineError) as caught:
        as_work("w", fal_draws)
    assert not caught.value.charged
    assert spent_by("run-1") == 0
    fal.error = None
    as_work("w", fal_draws)
    assert len(fal.accepted) == 2
    assert spent_by("run-1") == 0.025


def test_failures_of_tasks_keep_their_codes(runware: Runware, kling: Kling, monkeypatch):
    connected(monkeypatch, runware, kling)
    runware.error = {"code": "nsfwContentDetected", "message": "no"}
    with pytest.raises(errors.SafetyFilterError):
        as_work("r", runware_enlarges)
    kling.error = {"task_status_msg": "Failure to pass the risk control system"}
    kling.units = None
    with pytest.raises(errors.SafetyFilterError):
        as_work("k", kling_animates)
    kling.error = {"task_status_msg": "something else"}
    with pytest.raises(errors.UnknownError, match="something else"):
        as_work("k2", kling_animates)


def test_pictures_that_kling_does_not_take_are_refused_before_anything_is_sent(kling: Kling):
    request = AnimateRequest(seconds=1, fps=8)
    with pytest.raises(errors.InvalidMediaError, match="300 px"):
        engines()["provider_kling"].animate(request, SMALL)
    assert kling.asked == []


def test_a_batch_tries_nothing_anew_that_was_sent_to_a_provider(runware: Runware):
    from flows.batching.outcomes import may_pass
    from safelight.provenance.batches import BatchOutcome
    from safelight.provenance.manifest import Failure

    failure = Failure(code="ENGINE_OFFLINE", problem="x", remedy="y")
    outcome = BatchOutcome(
        number=1, where="line 1", state="failed", flow_run_id="run-1", error=failure
    )
    assert may_pass(outcome)
    as_work("w", runware_enlarges)
    assert not may_pass(outcome)
    assert may_pass(outcome.model_copy(update={"flow_run_id": "run-2"}))


def test_a_batch_says_what_its_requests_cost():
    from safelight.provenance.batches import BatchOutcome, BatchReport

    def one(number: int, **more: object) -> BatchOutcome:
        return BatchOutcome(number=number, where=f"line {number}", state="succeeded", **more)  # type: ignore[arg-type]

    outcomes = one(1, cost_usd=0.1), one(2, cost_usd=0.2), one(3, cost_usd=9.0, reused=True)
    report = BatchReport(
        flow_run_id="b", flow="generate", batch="b", ran="here", requests=3, outcomes=outcomes
    )
    assert report.counts()["cost_usd"] == 0.3
    free = report.model_copy(update={"outcomes": (one(1),)})
    assert "cost_usd" not in free.counts()

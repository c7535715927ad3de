"""What each error body of a provider is for a run: its code, and whether it is tried again."""

from typing import Any

import pytest

from safelight.engines.fal import refusals as fal
from safelight.engines.kling import calls as kling
from safelight.engines.remote.asking import Answer, Provider, SlowDownError, retry_after
from safelight.engines.runware import calls as runware
from safelight.engines.synclabs import calls as synclabs
from safelight.errors import PipelineError

WHO = Provider("the provider", ("a-secret-key-123:and-its-secret",))
FUNDS, AUTH, SAFETY = "INSUFFICIENT_FUNDS", "AUTH_INVALID", "SAFETY_FILTER"
RATE, VALUE, OFFLINE = "RATE_LIMIT_EXCEEDED", "INVALID_FIELD_VALUE", "ENGINE_OFFLINE"
TIMEOUT, CONTRACT, UNKNOWN = "ENGINE_TIMEOUT", "CONTRACT_MISMATCH", "UNKNOWN_ERROR"


def answer(status: int, told: Any, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, told)


def of_model(kind: str, message: str = "Input should be valid") -> dict[str, Any]:
    return {"detail": [{"loc": ["body", "prompt"], "msg": message, "type": kind, "input": "x"}]}


FAL = [
    (
        403,
        {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal"},
        FUNDS,
    ),
    (403, {"detail": "User is locked. Reason: Admin lock."}, FUNDS),
    (403, {"detail": "TOP_UP"}, FUNDS),
    (402, {"detail": "Payment required"}, FUNDS),
    (403, {"detail": "Access denied"}, AUTH),
    (401, {"detail": "No user found for Key ID and Secret"}, AUTH),
    (422, of_model("content_policy_violation", "flagged by a content checker"), SAFETY),
    (422, of_model("value_error"), VALUE),
    (422, of_model("image_too_small"), VALUE),
    (400, {"detail": "Bad request", "error_type": "bad_request"}, VALUE),
    (404, {"detail": "Application 'x' not found"}, CONTRACT),
    (429, {"detail": "Too many requests"}, RATE),
    (429, {"detail": "Concurrency limit reached"}, RATE),
    (504, {"detail": "late", "error_type": "request_timeout"}, TIMEOUT),
    (504, {"detail": "late", "error_type": "startup_timeout"}, TIMEOUT),
    (503, {"detail": "x", "error_type": "runner_connection_timeout"}, TIMEOUT),
    (503, {"detail": "x", "error_type": "runner_scheduling_failure"}, OFFLINE),
    (503, {"detail": "x", "error_type": "runner_disconnected"}, OFFLINE),
    (503, {"detail": "x", "error_type": "runner_connection_refused"}, OFFLINE),
    (500, {"detail": "Internal Server Error"}, OFFLINE),
    (500, {"detail": [{"msg": "failed", "type": "internal_server_error", "loc": []}]}, OFFLINE),
    (502, None, OFFLINE),
    (418, None, UNKNOWN),
]
RUNWARE = [
    (400, "insufficientCredits", FUNDS),
    (400, "insufficient_credits", FUNDS),
    (400, "quotaExceeded", FUNDS),
    (400, "balanceTooLow", FUNDS),
    (402, "paymentRequired", FUNDS),
    (200, "environmentPaused", FUNDS),
    (401, "invalidApiKey", AUTH),
    (400, "invalidApiKey", AUTH),
    (200, "contentPolicyViolation", SAFETY),
    (200, "providerContentPolicyViolation", SAFETY),
    (200, "nsfwContentDetected", SAFETY),
    (200, "promptBlocked", SAFETY),
    (429, "rateLimitExceeded", RATE),
    (200, "RateLimitReached", RATE),
    (429, "concurrentRequestsLimit", RATE),
    (200, "timeoutProvider", TIMEOUT),
    (200, "inferenceTimeout", TIMEOUT),
    (200, "providerError", OFFLINE),
    (200, "providerUnavailable", OFFLINE),
    (500, "whatever", OFFLINE),
    (400, "invalidPositivePrompt", VALUE),
    (400, "missingTaskUUID", VALUE),
    (400, "unsupportedModel", VALUE),
    (200, "somethingNew", UNKNOWN),
]
KLING = [
    *((401, code, AUTH) for code in (1000, 1001, 1002, 1003, 1004)),
    (429, 1100, AUTH),
    (429, 1101, FUNDS),
    (429, 1102, FUNDS),
    (403, 1103, AUTH),
    (400, 1200, VALUE),
    (400, 1201, VALUE),
    (404, 1202, CONTRACT),
    (404, 1203, CONTRACT),
    (400, 1300, SAFETY),
    (400, 1301, SAFETY),
    (429, 1302, RATE),
    (429, 1303, RATE),
    (429, 1304, AUTH),
    (500, 5000, OFFLINE),
    (503, 5001, OFFLINE),
    (504, 5002, TIMEOUT),
    (200, 9999, UNKNOWN),
]
SYNC = [
    (400, "generation_input_face_selection_invalid", VALUE),
    (400, "generation_input_too_many_visual", VALUE),
    (400, "generation_input_segments_invalid", VALUE),
    (400, "generation_input_dub_audio_conflict", VALUE),
    (400, "generation_audio_length_exceeded", VALUE),
    (400, "generation_text_length_exceeded", VALUE),
    (402, "generation_plan_duration_exceeded", FUNDS),
    (402, None, FUNDS),
    (422, "generation_media_metadata_missing", VALUE),
    (429, "concurrency_limit_reached", RATE),
    (429, "rate_limit_exceeded", RATE),
    (403, "batch_plan_required", AUTH),
    (401, None, AUTH),
    (413, None, VALUE),
    (400, "content_policy_violation", SAFETY),
    (422, "IDEMPOTENCY_KEY_REUSED", VALUE),
    (400, "INVALID_IDEMPOTENCY_KEY", VALUE),
    (404, None, CONTRACT),
    (500, None, OFFLINE),
    (503, None, OFFLINE),
]
FAILED = [
    ("FAILED", "generation_timeout", TIMEOUT),
    ("FAILED", "generation_infra_gpu_lost", OFFLINE),
    ("FAILED", "controller_restarted", OFFLINE),
    ("FAILED", "generation_audio_length_exceeded", VALUE),
    ("FAILED", "generation_plan_duration_exceeded", FUNDS),
    ("FAILED", "generation_moderation_rejected", SAFETY),
    ("REJECTED", None, SAFETY),
    ("FAILED", None, UNKNOWN),
]


def require(error: PipelineError, code: str) -> None:
    assert error.code == code, str(error)
    assert error.transient == (code in (RATE, OFFLINE, TIMEOUT))
    assert error.remedy
    assert not error.charged


@pytest.mark.parametrize(("status", "told", "code"), FAL)
def test_errors_of_fal(status: int, told: Any, code: str):
    require(fal.refusal(WHO, answer(status, told)), code)


@pytest.mark.parametrize(("status", "name", "code"), RUNWARE)
def test_errors_of_runware(status: int, name: str, code: str):
    told = {"errors": [{"code": name, "message": "it says so", "taskUUID": "t", "type": "string"}]}
    error = runware.first_error(WHO, answer(status, told), "t")
    assert error is not None
    require(error, code)


def test_an_error_of_another_task_of_runware_is_not_meant():
    told = {"errors": [{"code": "promptBlocked", "message": "x", "taskUUID": "other"}]}
    assert runware.first_error(WHO, answer(200, told), "t") is None


@pytest.mark.parametrize(("status", "number", "code"), KLING)
def test_errors_of_kling(status: int, number: int, code: str):
    told = {"code": number, "message": "it says so", "request_id": "r"}
    require(kling.refusal(WHO, answer(status, told)), code)


@pytest.mark.parametrize(("status", "name", "code"), SYNC)
def test_errors_of_sync_labs(status: int, name: str | None, code: str):
    told = {"statusCode": status, "message": ["one", "two"], "errorCode": name, "error": "Error"}
    require(synclabs.refusal(WHO, answer(status, told)), code)


@pytest.mark.parametrize(("status", "name", "code"), FAILED)
def test_failures_of_generations(status: str, name: str | None, code: str):
    told = {"status": status, "errorCode": name, "error": "it says so", "field": "input"}
    require(synclabs._failure(WHO, told), code)


@pytest.mark.parametrize(
    ("error", "concurrent"),
    [
        (fal.refusal(WHO, answer(429, {"detail": "Concurrency limit"}, retry_after="7")), True),
        (fal.refusal(WHO, answer(429, {"detail": "Too many"}, retry_after="7")), False),
        (kling.refusal(WHO, answer(429, {"code": 1303}, retry_after="7")), True),
        (kling.refusal(WHO, answer(429, {"code": 1302}, retry_after="7")), False),
        (
            synclabs.refusal(
                WHO, answer(429, {"errorCode": "concurrency_limit_reached"}, retry_after="7")
            ),
            True,
        ),
        (
            synclabs.refusal(
                WHO, answer(429, {"errorCode": "rate_limit_exceeded"}, retry_after="7")
            ),
            False,
        ),
        (runware.refusal(WHO, {"code": "rateLimit"}, answer(429, {}, retry_after="7")), False),
        (
            runware.refusal(WHO, {"code": "concurrencyLimit"}, answer(429, {}, retry_after="7")),
            True,
        ),
    ],
)
def test_too_often_and_too_much_at_once_are_told_apart(error: PipelineError, concurrent: bool):
    assert isinstance(error, SlowDownError)
    assert error.wait_seconds == 7
    assert error.concurrent == concurrent
    assert ("so much at once" in error.problem) == concurrent


@pytest.mark.parametrize(
    ("text", "date", "seconds"),
    [
        ("12", "", 12.0),
        ("Sat, 28 Nov 2026 10:00:30 GMT", "Sat, 28 Nov 2026 10:00:00 GMT", 30.0),
        ("Sat, 28 Nov 2026 09:00:00 GMT", "Sat, 28 Nov 2026 10:00:00 GMT", 0.0),
        ("soon", "", None),
        ("", "", None),
        ("-4", "", None),
    ],
)
def test_how_long_to_wait(text: str, date: str, seconds: float | None):
    assert retry_after(text, date) == seconds


def test_what_a_provider_says_is_short_and_holds_no_key():
    said = WHO.said(
        "key a-secret-key-123 and and-its-secret\nat https://x.y/z?sig=abc " + "long " * 200
    )
    assert "secret" not in said.replace("***", "")
    assert "sig=" not in said
    assert "\n" not in said
    assert len(said) <= 300

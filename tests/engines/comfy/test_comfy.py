"""The client of ComfyUI against a server that answers as a real one did, well and badly."""

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safelight.engines.comfy import engine as comfy_engine
from safelight.engines.comfy import following, jobs, server
from safelight.engines.comfy.engine import ENGINE
from safelight.engines.comfy.refusals import failure, refused
from safelight.engines.comfy.server import Server
from safelight.engines.graphs import (
    GraphRequest,
    Place,
    Scalar,
    graph_json,
    place_of,
    read_graph,
    with_values,
)
from safelight.errors import PipelineError
from safelight.progress import (
    StopReason,
    StopRequestedError,
    clear_stop,
    request_stop,
    viewing,
    watching,
)
from safelight.settings import settings
from tests.engines.comfy.comfy_server import GRAPH, RECORDED, Comfy, comfy_up
from tests.prefect_pool import eventually

SECRET = "hunter2-of-the-proxy"
WAIT_SECONDS = 60


@pytest.fixture
def comfy(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Comfy]:
    """A server that the settings name; nobody waits long in these tests."""
    monkeypatch.setattr(jobs, "ARRIVES", (0.05, 0.05))
    monkeypatch.setattr(server, "PAUSES", (0.02, 0.05))
    monkeypatch.setattr(following, "ASK_SECONDS", 0.2)
    monkeypatch.setattr(following, "SURE_SECONDS", 0.2)
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.02)
    monkeypatch.setenv("SAFELIGHT_COMFY_PATIENCE_SECONDS", "0.5")
    there = Comfy()
    with comfy_up(there) as url:
        monkeypatch.setenv("SAFELIGHT_COMFY_URL", url)
        settings.cache_clear()
        yield there
    clear_stop()


def request(graph: dict[str, Any] | None = None, **values: Scalar) -> GraphRequest:
    nodes = read_graph(json.dumps(graph or GRAPH), "drawn")
    given = {place_of(nodes, name, "drawn"): value for name, value in values.items()}
    filled = graph_json(with_values(nodes, given))
    return GraphRequest(workflow="drawn", graph=filled, given=tuple(given))


def run(
    folder: Path, job: str = "one", wanted: GraphRequest | None = None, *pictures: bytes
) -> tuple[Path, ...]:
    folder.mkdir(exist_ok=True)
    media: list[Path] = []
    for number, picture in enumerate(pictures):
        media.append(folder.with_name(f"{folder.name}-{number}.png"))
        media[-1].write_bytes(picture)
    return ENGINE.run_graph(wanted or request(), media, job, folder)


def beside(folder: Path, job: str = "one") -> tuple[threading.Thread, list[BaseException | Any]]:
    """The same in a thread, and how it ends."""
    ended: list[BaseException | Any] = []

    def work() -> None:
        try:
            ended.append(run(folder, job))
        except BaseException as error:  # noqa: BLE001  # the test looks at it
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, ended


def test_a_workflow_is_sent_once_and_its_pictures_come_back(comfy: Comfy, tmp_path: Path):
    steps: list[tuple[int, int]] = []
    comfy.paused_at = "9"

    def told(done: int, total: int) -> None:
        steps.append((done, total))
        if done == 600:  # six of seven nodes
            comfy.hold.set()

    with watching(told):
        (made,) = run(tmp_path / "a")
    (name,) = comfy.files
    assert made.read_bytes() == comfy.files[name]
    assert len(comfy.submitted) == 1
    assert steps == sorted(steps)
    assert steps[-1] == (700, 700)


def test_a_lost_answer_is_not_sent_again(comfy: Comfy, tmp_path: Path):
    comfy.fault("POST", "/prompt", "cut after")
    with watching(None) as notes:
        assert len(run(tmp_path / "a")) == 1
    assert len(comfy.submitted) == 1
    assert "found in ComfyUI's queue" in " ".join(notes)


@pytest.mark.parametrize("fault", ["cut before", "502", "500"])
def test_what_never_arrived_is_sent_again(comfy: Comfy, tmp_path: Path, fault: str):
    comfy.fault("POST", "/prompt", fault)
    assert len(run(tmp_path / "a")) == 1
    assert len(comfy.submitted) == 1
    assert comfy.asked.count(("POST", "/prompt")) == 2


def test_a_server_that_never_takes_it_is_offline(comfy: Comfy, tmp_path: Path):
    comfy.fault("POST", "/prompt", "502", times=99)
    with pytest.raises(PipelineError) as refusal:
        run(tmp_path / "a")
    assert refusal.value.code == "ENGINE_OFFLINE"
    assert refusal.value.transient
    assert comfy.asked.count(("POST", "/prompt")) == jobs.SENT_AT_MOST
    assert comfy.submitted == []


def test_the_same_job_finds_its_result(comfy: Comfy, tmp_path: Path):
    first = run(tmp_path / "a")
    again = run(tmp_path / "b")
    other = run(tmp_path / "c", "another")
    assert len(comfy.submitted) == len(set(comfy.submitted)) == 2
    assert first[0].read_bytes() == again[0].read_bytes() == other[0].read_bytes()


def test_a_job_that_failed_is_sent_under_another_id(comfy: Comfy, tmp_path: Path):
    comfy.error = RECORDED["execution_error"]
    with pytest.raises(PipelineError):
        run(tmp_path / "a")
    comfy.error = None
    assert len(run(tmp_path / "b")) == 1
    assert len(set(comfy.submitted)) == 2


def test_another_process_goes_on_with_what_one_began(comfy: Comfy, tmp_path: Path):
    comfy.paused_at = "3"
    thread, ended = beside(tmp_path / "a")
    eventually(lambda: comfy.running and not comfy.hold.is_set())
    request_stop(StopReason.RESCHEDULE)
    thread.join(WAIT_SECONDS)
    assert isinstance(ended[0], StopRequestedError)
    assert comfy.interrupted == comfy.deleted == []
    clear_stop()
    comfy.hold.set()
    with watching(None) as notes:
        assert len(run(tmp_path / "b")) == 1
    assert len(comfy.submitted) == 1
    assert "was on the server already" in " ".join(notes)


THEIRS: list[Any] = [99, "00000000-0000-4000-8000-000000000000", GRAPH, {"client_id": "x"}, []]


@pytest.mark.parametrize("version", ["0.3.64", "0.26.0"])
@pytest.mark.parametrize("where", ["running", "pending"])
def test_a_cancelled_run_takes_its_own_prompt_alone(
    comfy: Comfy, tmp_path: Path, version: str, where: str
):
    comfy.version = version
    if where == "running":
        comfy.paused_at = "3"
    else:
        comfy.hold.clear()
        comfy.running.append(THEIRS)
    thread, ended = beside(tmp_path / "mine")
    if where == "running":
        eventually(lambda: comfy.running and not comfy.hold.is_set())
        comfy.pending.append(THEIRS)
    else:
        eventually(lambda: comfy.pending)
    request_stop(StopReason.CANCEL)
    thread.join(WAIT_SECONDS)
    assert isinstance(ended[0], StopRequestedError)
    (own,) = comfy.submitted
    assert (comfy.interrupted, comfy.deleted) == (
        ([own], []) if where == "running" else ([], [own])
    )
    assert THEIRS in (comfy.pending if where == "running" else comfy.running)
    assert (("POST", f"/api/jobs/{own}/cancel") in comfy.asked) is (version == "0.26.0")


def test_a_broken_websocket_is_opened_again(comfy: Comfy, tmp_path: Path):
    comfy.paused_at = "3"
    thread, ended = beside(tmp_path / "a")
    eventually(lambda: comfy.running and not comfy.hold.is_set())
    comfy.drop_sockets()
    eventually(lambda: comfy.socket_opens > 1)
    comfy.hold.set()
    thread.join(WAIT_SECONDS)
    assert len(ended[0]) == 1
    assert len(comfy.submitted) == 1


def test_without_a_websocket_the_server_is_asked(comfy: Comfy, tmp_path: Path):
    comfy.websocket = False
    assert len(run(tmp_path / "a")) == 1
    assert comfy.socket_opens == 0


def test_faults_of_the_server_while_it_runs_pass(comfy: Comfy, tmp_path: Path):
    comfy.fault("GET", "/history", "502", times=2)
    comfy.fault("GET", "/queue", "cut before")
    comfy.fault("GET", "/view", "half")
    (made,) = run(tmp_path / "a")
    assert made.read_bytes() in comfy.files.values()


def test_a_restart_in_the_middle_may_be_tried_again(comfy: Comfy, tmp_path: Path):
    comfy.paused_at = "3"
    thread, ended = beside(tmp_path / "a")
    eventually(lambda: comfy.running and not comfy.hold.is_set())
    comfy.forget()
    thread.join(WAIT_SECONDS)
    assert ended[0].code == "ENGINE_OFFLINE"
    assert "was restarted" in ended[0].problem
    comfy.paused_at = ""
    comfy.hold.set()
    assert len(run(tmp_path / "b")) == 1


def test_what_somebody_took_away_is_not_sent_again(comfy: Comfy, tmp_path: Path):
    comfy.hold.clear()
    thread, ended = beside(tmp_path / "a")
    eventually(lambda: comfy.pending)
    comfy.pending.clear()
    thread.join(WAIT_SECONDS)
    assert "out of the queue" in ended[0].problem
    assert not ended[0].transient


def test_a_workflow_that_stands_still_is_taken_back(
    comfy: Comfy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SAFELIGHT_COMFY_STALL_SECONDS", "0.4")
    settings.cache_clear()
    comfy.paused_at = "3"
    with pytest.raises(PipelineError, match=r"no step .* for 0\.4 s") as late:
        run(tmp_path / "a")
    assert late.value.code == "ENGINE_TIMEOUT"
    assert comfy.interrupted == comfy.submitted


def test_a_server_that_says_nothing_is_late_and_keeps_the_work(
    comfy: Comfy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SAFELIGHT_COMFY_ANSWER_SECONDS", "0.5")
    monkeypatch.setenv("SAFELIGHT_COMFY_PATIENCE_SECONDS", "0")
    settings.cache_clear()
    comfy.fault("GET", "/view", "silence")
    with pytest.raises(PipelineError, match=r"said nothing for 0\.5 s") as late:
        run(tmp_path / "a")
    assert late.value.code == "ENGINE_TIMEOUT"
    assert comfy.interrupted == comfy.deleted == []
    monkeypatch.setenv("SAFELIGHT_COMFY_ANSWER_SECONDS", "30")
    settings.cache_clear()
    assert len(run(tmp_path / "b")) == 1
    assert len(comfy.submitted) == 1


def test_a_queue_is_not_standing_still(
    comfy: Comfy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SAFELIGHT_COMFY_STALL_SECONDS", "0.3")
    settings.cache_clear()
    comfy.hold.clear()
    thread, ended = beside(tmp_path / "a")
    eventually(lambda: comfy.asked.count(("GET", "/queue")) > 5)
    comfy.hold.set()
    thread.join(WAIT_SECONDS)
    assert len(ended[0]) == 1


@pytest.mark.parametrize(
    ("path", "fault", "code", "said"),
    [
        ("/view", "type", "INVALID_FIELD_VALUE", "text/html"),
        ("/view", "endless", "INVALID_FIELD_VALUE", "more than"),
        ("/object_info", "endless", "CONTRACT_MISMATCH", "more than"),
        ("/view", "half", "ENGINE_OFFLINE", "does not answer"),
        ("/system_stats", "500", "ENGINE_OFFLINE", "500"),
        ("/system_stats", "302", "AUTH_MISSING", "302"),
    ],
)
def test_wrong_answers_have_an_end_and_a_code(
    comfy: Comfy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    fault: str,
    code: str,
    said: str,
):
    monkeypatch.setattr(server, "LARGEST_PICTURE", 3 * 2**20)
    monkeypatch.setattr(server, "LARGEST_ANSWER", 3 * 2**20)
    comfy.fault("GET", path, fault, times=9999)
    with pytest.raises(PipelineError, match=said) as refusal:
        run(tmp_path / "a")
    assert refusal.value.code == code
    assert list((tmp_path / "a").iterdir()) == []  # nothing half-made stays


def test_a_result_that_is_gone_is_said(comfy: Comfy, tmp_path: Path):
    run(tmp_path / "a")
    comfy.files.clear()
    with pytest.raises(PipelineError) as refusal:
        run(tmp_path / "b")
    assert refusal.value.code == "FILE_NOT_FOUND"


BAD: dict[str, tuple[dict[str, Scalar], str, list[str]]] = {
    "below its limit": (
        {"3.steps": 0},
        "CONTRACT_MISMATCH",
        ["node 3 KSampler", "steps", "1 to 10000"],
    ),
    "above its limit": ({"KSampler.cfg": 100.5}, "CONTRACT_MISMATCH", ["cfg", "100.0"]),
    "a broken number": ({"KSampler.steps": 2.5}, "CONTRACT_MISMATCH", ["2.5", "a whole number"]),
    "true for a number": ({"KSampler.steps": True}, "CONTRACT_MISMATCH", ["a whole number"]),
    "a number for text": ({"Positive.text": 3}, "CONTRACT_MISMATCH", ["'Positive'", "text"]),
    "an unknown choice": (
        {"KSampler.scheduler": "fast"},
        "CONTRACT_MISMATCH",
        ["'fast'", "'karras'"],
    ),
    "an unknown input": ({"KSampler.stepz": 3}, "CONTRACT_MISMATCH", ["no such input", "steps"]),
    "a value for a link": ({"KSampler.model": "x"}, "CONTRACT_MISMATCH", ["MODEL"]),
    "a missing model": (
        {"Load Checkpoint.ckpt_name": "film.safetensors"},
        "DEPENDENCY_MISSING",
        ["'film.safetensors'", "'tiny_sd15.safetensors'"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_values_that_do_not_fit_are_refused_before_anything_is_sent(
    comfy: Comfy, tmp_path: Path, name: str
):
    values, code, said = BAD[name]
    with pytest.raises(PipelineError) as refusal:
        run(tmp_path / "a", "one", request(**values))
    assert refusal.value.code == code
    assert all(word in refusal.value.problem for word in said), refusal.value
    assert not [asked for asked in comfy.asked if asked[0] == "POST"]


@pytest.mark.parametrize("name", ["VAE/Fancy", "VAEDecodeFancy"])
def test_a_missing_type_of_node_is_named(comfy: Comfy, tmp_path: Path, name: str):
    graph = {**GRAPH, "8": {**GRAPH["8"], "class_type": name}}
    with pytest.raises(PipelineError, match=name) as refusal:
        run(tmp_path / "a", "one", request(graph))
    assert refusal.value.code == "DEPENDENCY_MISSING"
    assert "node 8" in refusal.value.problem
    assert comfy.submitted == []


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (RECORDED["unknown_node"], "DEPENDENCY_MISSING", ["node 8", "'VAEDecode'"]),
        (RECORDED["too_small"], "CONTRACT_MISMATCH", ["node 3 KSampler", "steps", "min of 1"]),
        (
            RECORDED["missing_model"],
            "DEPENDENCY_MISSING",
            ["'sdxl.safetensors'", "ckpt_name", "'tiny_sd15.safetensors'"],
        ),
        (  # as later versions say it
            {
                "error": {
                    "type": "missing_node_type",
                    "message": "Node type not found",
                    "details": "",
                    "extra_info": {"node_id": "8", "class_type": "VAEDecode"},
                },
                "node_errors": {},
            },
            "DEPENDENCY_MISSING",
            ["node 8"],
        ),
        (  # of long lists the server does not tell the choices
            {
                "error": {"type": "prompt_outputs_failed_validation", "message": "failed"},
                "node_errors": {
                    "3": {
                        "errors": [
                            {
                                "type": "value_not_in_list",
                                "message": "Value not in list",
                                "details": "sampler_name: 'x' not in (list of length 42)",
                                "extra_info": {
                                    "input_name": "sampler_name",
                                    "input_config": None,
                                    "received_value": "x",
                                },
                            }
                        ],
                        "class_type": "KSampler",
                    }
                },
            },
            "CONTRACT_MISMATCH",
            ["node 3 KSampler", "sampler_name", "(list of length 42)"],
        ),
        (
            {"error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs"}},
            "CONTRACT_MISMATCH",
            ["Prompt has no outputs"],
        ),
        ({"error": 7, "node_errors": [{}]}, "CONTRACT_MISMATCH", ["no reason"]),
    ],
)
def test_refusals_of_the_server_are_ours(answer: dict[str, Any], code: str, said: list[str]):
    error = refused(_nobody(), read_graph(json.dumps(GRAPH), "drawn"), answer)
    assert error.code == code
    assert all(word in error.problem for word in said), error


@pytest.mark.parametrize(
    ("told", "code", "said"),
    [
        ({}, "UNKNOWN_ERROR", ["node 10 LoadImage", "cannot identify image file"]),
        (
            {"exception_type": "torch.OutOfMemoryError", "exception_message": "Allocation on"},
            "OUT_OF_MEMORY",
            ["out of memory"],
        ),
    ],
)
def test_a_node_that_fails_is_named(told: dict[str, str], code: str, said: list[str]):
    graph = read_graph(json.dumps(RECORDED["image_graph"]), "drawn")
    messages = [["execution_error", {**RECORDED["execution_error"], **told}]]
    error = failure(_nobody(), graph, {"status": {"status_str": "error", "messages": messages}})
    assert error is not None
    assert error.code == code
    assert all(word in error.problem for word in said), error
    assert failure(_nobody(), graph, {"status": None, "outputs": {}}) is None
    interrupted = {"status_str": "error", "messages": RECORDED["interrupted"]}
    stopped = failure(_nobody(), graph, {"status": interrupted})
    assert stopped is not None
    assert "interrupted" in stopped.problem


def test_without_a_server_the_engine_refuses_at_once(volume: Path, monkeypatch: pytest.MonkeyPatch):
    refusal = ENGINE.can(request())
    assert refusal is not None
    assert refusal.code == "DEPENDENCY_MISSING"
    assert "SAFELIGHT_COMFY_URL" in refusal.remedy
    monkeypatch.setenv("SAFELIGHT_COMFY_URL", "http://127.0.0.1:9")
    settings.cache_clear()
    assert ENGINE.can(request()) is None  # nobody was asked
    offline = ENGINE.health_check()
    assert offline is not None
    assert offline.code == "ENGINE_OFFLINE"


@pytest.mark.parametrize("version", ["0.3.63", "0.2.99", "none"])
def test_older_servers_are_refused(comfy: Comfy, version: str):
    comfy.version = version
    refusal = ENGINE.health_check()
    assert refusal is not None
    assert refusal.code == "DEPENDENCY_MISSING"
    assert version == "none" or f"is {version}, expected 0.3.64" in refusal.problem


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        (f"http://user:{SECRET}@127.0.0.1:9", ""),
        (f"ftp://127.0.0.1:9/{SECRET}", ""),
        (f"http://127.0.0.1:9/?token={SECRET}", ""),
        ("http://127.0.0.1:9", SECRET),
        ("http://127.0.0.1:9", json.dumps({"X Y": SECRET})),
        ("http://127.0.0.1:9", json.dumps({"X": f"{SECRET}\nY: 1"})),
    ],
)
def test_settings_that_cannot_be_are_refused_without_being_shown(
    volume: Path, monkeypatch: pytest.MonkeyPatch, url: str, headers: str
):
    monkeypatch.setenv("SAFELIGHT_COMFY_URL", url)
    monkeypatch.setenv("SAFELIGHT_COMFY_HEADERS", headers)
    settings.cache_clear()
    refusal = ENGINE.can(request())
    assert refusal is not None
    assert refusal.code == "INVALID_FIELD_VALUE"
    assert SECRET not in str(refusal)
    assert not headers or SECRET not in repr(settings())


def test_headers_go_with_every_question_and_into_no_log(
    comfy: Comfy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    comfy.wanted = {"X-Key": SECRET}
    refusal = ENGINE.health_check()
    assert refusal is not None
    assert refusal.code == "AUTH_MISSING"
    monkeypatch.setenv("SAFELIGHT_COMFY_HEADERS", json.dumps({"X-Key": SECRET}))
    settings.cache_clear()
    comfy.error = {**RECORDED["execution_error"], "exception_message": f"key {SECRET}"}
    caplog.set_level(logging.DEBUG)
    with pytest.raises(PipelineError, match=r"key \*\*\*") as failed:
        run(tmp_path / "a")
    assert SECRET not in repr(failed.value)
    comfy.error = None
    assert len(run(tmp_path / "b")) == 1
    assert comfy.socket_opens == 2
    assert all(told["X-Key"] == SECRET for told in comfy.headers[1:])
    assert SECRET not in caplog.text
    comfy.wanted = {"X-Key": "another"}
    refusal = ENGINE.health_check()
    assert refusal is not None
    assert refusal.code == "AUTH_INVALID"
    assert SECRET not in str(refusal)


def test_pictures_are_sent_once_under_the_name_of_their_content(comfy: Comfy, tmp_path: Path):
    wanted = replace(request(RECORDED["image_graph"]), media=(Place("10", "image"),))
    picture = comfy.picture(GRAPH)
    run(tmp_path / "a", "one", wanted, picture)
    ((name, sent),) = comfy.uploads.items()
    assert sent == picture
    assert name.startswith("safelight/")
    (done,) = comfy.history.values()
    assert done["prompt"][2]["10"]["inputs"]["image"] == name


def test_a_workflow_without_pictures_is_refused(
    comfy: Comfy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(comfy_engine, "ENDINGS", {"image": (".gif",)})  # as if it saved a video
    with pytest.raises(PipelineError, match=r"saved no picture, but Safelight_00000_\.png"):
        run(tmp_path / "a")


def _nobody() -> Server:
    return Server("http://127.0.0.1:9", {}, answer_seconds=1, patience_seconds=0)


def test_previews_are_passed_on(comfy: Comfy, tmp_path: Path):
    comfy.preview = b"\xff\xd8\xff" + b"picture" * 20
    comfy.paused_at = "9"  # a prompt that is done at once is not listened to
    seen: list[bytes] = []

    def looked(picture: bytes) -> None:
        seen.append(picture)
        comfy.hold.set()

    with viewing(looked):
        run(tmp_path / "a")
    assert set(seen) == {comfy.preview}

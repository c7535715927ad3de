"""What listeners are told: everything once and in order, whatever is lost or comes late."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from uuid import uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import Flow, FlowRun, State, StateType
from prefect.events import Event, Resource
from prefect.settings import PREFECT_API_URL, temporary_settings

from safelight.client.telling import EVENT, resource_of, told_by
from safelight.client.telling import Told as Telling
from safelight.gateway import followed as following
from safelight.gateway.events import USUAL, Heard, Told
from safelight.gateway.followed import Followed, Listener
from safelight.gateway.following import Following
from safelight.gateway.jobs import Flows
from tests.listening import listening

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
PREVIEW = "data:image/webp;base64,AAAA"


def state(kind: StateType, name: str, at: int) -> State:
    return State(id=uuid4(), type=kind, name=name, timestamp=BEGAN + timedelta(seconds=at))


def word(number: int, attempt: int = 1, **more: object) -> tuple[Telling, datetime]:
    said = {"try": attempt, "number": number, "percent": number, "stage": "generate", **more}
    return Telling.model_validate(said), BEGAN + timedelta(seconds=number)


STATES = [
    state(StateType.SCHEDULED, "Scheduled", 0),
    state(StateType.PENDING, "Pending", 1),
    state(StateType.RUNNING, "Running", 2),
]
DONE = state(StateType.COMPLETED, "Completed", 60)


def running() -> Followed:
    job = Followed(uuid4(), known=True)
    job.take_states(STATES)
    return job


def listens(job: Followed, told: Told | None = None) -> Listener:
    return Listener(job, told or Told(), "a-request", USUAL)


def percents(heard: list[Heard]) -> list[float]:
    return [each.event.progress for each in heard if each.kind == "progress"]


@pytest.fixture(autouse=True)
def _loop():
    with asyncio.Runner() as runner:  # events that wake listeners belong to a loop
        runner.get_loop()
        yield


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_twice_late_or_in_disorder_is_told_once_and_in_order(seed: int):
    chance = random.Random(seed)
    words = [word(n, stages=[stage("one", "began")], preview=PREVIEW) for n in range(1, 30)]
    words.append(word(30, last=True))
    words += [word(n, attempt=2) for n in range(1, 11)]
    arriving = [*words, *chance.sample(words, 10)]
    for at in range(0, len(arriving), 4):  # within a window, as messages overtake each other
        some = arriving[at : at + 4]
        chance.shuffle(some)
        arriving[at : at + 4] = some
    job = running()
    job.hear_told(*words[0])
    whole, heard = listens(job), []
    heard += whole.news()
    for each in arriving:
        job.hear_told(*each)
        heard += whole.news()
        if chance.random() < 0.3:  # the connection breaks, and another gateway goes on
            whole = listens(job, Told.read(str(whole.told)))
    heard += whole.news()
    ids = [each.told for each in heard]
    assert ids == sorted(set(ids))
    told = [(each.told.attempt, each.told.number) for each in heard if each.kind == "progress"]
    expected = [(1, n) for n in range(1, 31)] + [(2, n) for n in range(1, 11)]
    assert [place for place in told if place != (0, 0)] == expected


def stage(name: str, status: str) -> dict[str, str]:
    return {"name": name, "stage_type": "generate", "status": status}


def test_what_is_missing_is_waited_for_and_then_passed_over(monkeypatch: pytest.MonkeyPatch):
    job = running()
    job.hear_told(*word(1))
    listener = listens(job)
    assert percents(list(listener.news()))[-1] == 1
    job.hear_told(*word(3))
    assert list(listener.news()) == []
    assert job.dirty
    assert job.lacks
    assert job.ask_from == word(1)[1]
    job.hear_told(*word(2))  # the server had it
    assert percents(list(listener.news())) == [2, 3]
    assert not job.lacks
    job.hear_told(*word(5))
    monkeypatch.setattr(following, "GAP_SECONDS", -1.0)
    job.look()
    assert percents(list(listener.news())) == [5]


def test_one_who_comes_back_waits_for_what_came_next():
    job = running()
    job.hear_told(*word(9))  # another gateway, which heard nothing before
    listener = listens(job, Told(3, 1, 5, 999))
    assert list(listener.news()) == []
    for number in (8, 7, 6):
        job.hear_told(*word(number))
    assert percents(list(listener.news())) == [6, 7, 8, 9]


def test_one_who_comes_late_hears_all_stages_and_the_latest_progress():
    job = running()
    for number in range(1, 6):
        job.hear_told(*word(number, stages=[stage(f"s{number}", "done")], preview=PREVIEW))
    heard = list(listens(job).news())
    assert [each.event.name for each in heard if each.kind == "stage"] == [
        f"s{n}" for n in range(1, 6)
    ]
    assert percents(heard)[-1] == 5
    assert [each.kind for each in heard].count("preview") == 1
    assert percents(heard)[:-1] == [0, 0, 5]  # its states, the last as it stands now


def test_the_end_comes_after_the_last_word_of_the_run():
    job = running()
    job.hear_told(*word(1))
    job.take_states([DONE])
    listener = listens(job)
    assert "complete" not in [each.kind for each in listener.news()]
    assert not job.over
    job.hear_told(*word(2, last=True, stage=""))
    assert [each.kind for each in listener.news()] == ["complete"]
    assert job.over


@pytest.mark.parametrize(
    ("end", "patience"),
    [
        (state(StateType.CRASHED, "Crashed", 60), "LAST_SECONDS"),
        (DONE, "LATEST_SECONDS"),
        (state(StateType.FAILED, "Failed", 60), "LATEST_SECONDS"),
    ],
)
def test_a_run_that_was_killed_ends_too(monkeypatch: pytest.MonkeyPatch, end: State, patience: str):
    job = running()
    job.hear_told(*word(1))
    job.take_states([end])
    listener = listens(job)
    list(listener.news())
    other = {"LAST_SECONDS", "LATEST_SECONDS"} - {patience}
    monkeypatch.setattr(following, other.pop(), -1.0)
    assert [each.kind for each in listener.news()] == []  # what it told last may come late
    monkeypatch.setattr(following, patience, -1.0)
    assert [each.kind for each in listener.news()] == ["complete"]


def test_many_who_come_at_once_ask_the_server_once():
    """And one who comes to a job that others listen for asks nothing."""
    job, flow, asked = uuid4(), uuid4(), list[str]()
    runs = FlowRun(id=job, flow_id=flow, deployment_id=uuid4())
    told = {
        f"/api/flow_runs/{job}": runs.model_dump_json(),
        f"/api/flows/{flow}": Flow(id=flow, name="generate").model_dump_json(),
    }

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer = told.get(self.path, "{}").encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    async def come(client: SyncPrefectClient) -> None:
        known, flows = Following(client), Flows(client)
        found = await asyncio.gather(*(known.require(flows, job) for _ in range(50)))
        assert {run.id for run in found if run is not None} == {job}
        assert asked.count(f"/api/flow_runs/{job}") == 1
        await known.require(flows, job)
        assert asked.count(f"/api/flow_runs/{job}") == 2  # nobody listens: it may be gone
        first = asyncio.ensure_future(anext(known.news(job, Told(), "a-request")))
        await asyncio.sleep(0)
        known._followed[job].known = True
        assert await known.require(flows, job) is None
        assert asked.count(f"/api/flow_runs/{job}") == 2
        first.cancel()

    with (
        listening(Server) as address,
        temporary_settings({PREFECT_API_URL: f"{address}/api"}),
        get_client(sync_client=True) as client,
    ):
        asyncio.run(come(client))


def test_a_state_that_follows_none_that_is_known_is_asked_for():
    job = running()
    event = Event(
        id=DONE.id,
        event="prefect.flow-run.Completed",
        occurred=BEGAN,
        resource=Resource(resource_of(job.job_id)),
        payload={"validated_state": {"type": "COMPLETED", "name": "Completed"}},
        follows=uuid4(),
    )
    job.dirty = False
    job.hear_state(event)
    assert job.dirty
    assert not job.final
    job.dirty = False
    job.hear_state(event.model_copy(update={"follows": STATES[-1].id}))
    assert job.final
    assert not job.dirty
    job.hear_state(event)  # again
    assert len(job.states) == 4


def test_old_previews_are_let_go():
    job = running()
    for number in range(1, 101):
        job.hear_told(*word(number, preview=PREVIEW))
    kept = [entry for entry in job.told if entry.telling.preview]
    assert len(kept) == following.KEPT_PREVIEWS
    assert kept[-1].telling.number == 100


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"percent": 101},
        {"percent": float("nan")},
        {"preview": "javascript:alert(1)"},
        {"preview": "data:image/webp;base64," + "A" * 9000},
        {"number": 0},
        {"stages": [{"name": "x", "stage_type": "y", "status": "lost"}]},
    ],
)
def test_events_that_somebody_else_made_up_are_not_passed_on(wrong: dict):
    payload = {"try": 1, "number": 1, "percent": 1} | wrong if wrong else {"x": 1}
    event = Event(event=EVENT, resource=Resource(resource_of(uuid4())), payload=payload)
    assert told_by(event) is None


def test_ids_are_read_as_they_are_written():
    told = Told(4, 2, 17, 3, 1_700_000_000_000_000)
    assert Told.read(str(told)) == told
    for hostile in ("", "1.2", "a.b.c.d.e", "1.1.1.1.-1", "9" * 200):
        assert Told.read(hostile) == Told()

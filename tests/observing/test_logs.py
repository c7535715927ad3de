"""Lines of JSON in files by service and day."""

import gzip
import json
import logging
import stat
import threading
from datetime import date, timedelta

import pytest

from safelight.errors import MissingFileError, UnknownError
from safelight.observing import logs
from safelight.observing.correlating import (
    HEADER,
    LABEL,
    correlated,
    labels,
    of_run,
    process_correlated,
)
from safelight.observing.files import DailyFile, tidy
from safelight.observing.requests import SeenRequests
from safelight.settings import reload_settings

TODAY = date.today()


@pytest.fixture
def log(volume):
    factory = logging.getLogRecordFactory()
    logs.begin_log("gateway")
    yield lambda: _lines(volume / "logs" / "gateway")
    logs.end_log()
    logging.setLogRecordFactory(factory)


def _lines(folder):
    (path,) = folder.glob("*.log")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_an_object_with_the_id_of_the_request(log, volume):
    with correlated("mine-7"):
        logs.seen("it happened", status=200, where="https://h/x?token=abcdefgh")
    with process_correlated("of-the-run"):
        thread = threading.Thread(target=lambda: logging.getLogger("any").warning("beside\nit"))
        thread.start()
        thread.join()
    first, second = log()
    assert first["message"] == "it happened"
    assert first["correlation_id"] == "mine-7"
    assert first["status"] == 200
    assert first["where"] == "https://h/x?token=***"
    assert first["service"] == "gateway"
    assert second["correlation_id"] == "of-the-run"
    assert second["level"] == "WARNING"
    (path,) = (volume / "logs" / "gateway").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_failure_with_a_code_says_it_first_and_has_no_traceback(log):
    missing = MissingFileError("no file at /home/ben/a.png", "check the path")
    logging.getLogger("any").error("it failed", exc_info=missing)
    logging.getLogger("any").error("%s", MissingFileError("no b.png", "look again"))
    unforeseen = ValueError("unforeseen, password=swordfish1")
    logging.getLogger("any").error("it broke", exc_info=unforeseen)
    coded, said, broken = log()
    assert list(coded)[2:5] == ["code", "problem", "remedy"]
    assert (coded["code"], coded["remedy"]) == ("FILE_NOT_FOUND", "check the path")
    assert coded["problem"] == "no file at ~/a.png"
    assert "traceback" not in coded
    assert (said["code"], said["remedy"]) == ("FILE_NOT_FOUND", "look again")
    assert "ValueError" in broken["traceback"]
    assert "swordfish1" not in json.dumps(broken)


def test_records_are_clean_for_every_handler(log, caplog):
    del log
    error = UnknownError("x")
    error.__cause__ = ValueError("sk-abcdefghijklmnopqrstuvwx")
    logging.getLogger("other").error("with %s", "token=abcdefgh12345678", exc_info=error)
    assert "abcdefgh" not in caplog.text


def test_a_timed_block_tells_how_it_ended(log):
    with pytest.raises(MissingFileError), logs.timed("work", kind="a"):
        raise MissingFileError("x", "y")
    with logs.timed("work", kind="b") as told:
        told["status"] = 3
    failed, done = log()
    assert failed["failed"] == "FILE_NOT_FOUND"
    assert done["status"] == 3
    assert done["seconds"] >= 0


def test_requests_that_name_an_id_are_seen(log):
    import anyio
    import httpx

    async def app(scope, receive, send):
        del scope, receive
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask():
        transport = httpx.ASGITransport(SeenRequests(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            await client.get("/quiet")
            await client.get("/told", headers={HEADER: "mine"})
            await client.get("/odd", headers={HEADER: "not\tplain"})

    anyio.run(ask)
    (line,) = [each for each in log() if each["logger"] == "safelight.seen"]
    assert (line["message"], line["status"], line["correlation_id"]) == ("GET /told", 204, "mine")


def test_ids_go_with_runs():
    assert labels() == {}
    with correlated("mine"):
        assert labels() == {LABEL: "mine"}
    assert of_run("run", {LABEL: "mine"}) == "mine"
    assert of_run("run", {LABEL: "bad id"}) == "run"
    assert of_run("run", None) == "run"


def test_old_files_are_compressed_and_the_oldest_removed(tmp_path):
    for days in (0, 6, 7, 29, 30, 90):
        (tmp_path / f"{TODAY - timedelta(days=days)}.log").write_text(f"{days}\n")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "2026-99-99.log").write_text("no day")
    tidy(tmp_path, TODAY)
    left = {path.name for path in tmp_path.iterdir()}
    day = {days: str(TODAY - timedelta(days=days)) for days in (0, 6, 7, 29)}
    assert left == {
        *(f"{day[0]}.log", f"{day[6]}.log", f"{day[7]}.log.gz", f"{day[29]}.log.gz"),
        *("notes.txt", "2026-99-99.log"),
    }
    assert gzip.decompress((tmp_path / f"{day[7]}.log.gz").read_bytes()) == b"7\n"
    tidy(tmp_path, TODAY + timedelta(days=2))
    assert f"{day[29]}.log.gz" not in {path.name for path in tmp_path.iterdir()}


def test_many_writers_lose_no_line(tmp_path):
    handlers = [DailyFile(tmp_path) for _ in range(4)]

    def write(number, handler):
        for at in range(200):
            record = logging.LogRecord("n", 20, "", 0, f"{number}-{at} " + "x" * 500, (), None)
            handler.emit(record)

    threads = [threading.Thread(target=write, args=pair) for pair in enumerate(handlers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for handler in handlers:
        handler.close()
    (path,) = tmp_path.iterdir()
    found = {line.partition(" ")[0] for line in path.read_text().splitlines()}
    assert found == {f"{number}-{at}" for number in range(4) for at in range(200)}


def test_a_disk_that_refuses_costs_the_line_alone(tmp_path, capsys):
    (tmp_path / "logs").write_text("a file")
    handler = DailyFile(tmp_path / "logs")
    for _ in range(3):
        handler.emit(logging.LogRecord("n", 20, "", 0, "x", (), None))
    handler.close()
    assert capsys.readouterr().err.count("no log is written") == 1


def test_files_are_off_by_a_setting(volume, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_LOG_FILES", "false")
    reload_settings()
    factory = logging.getLogRecordFactory()
    logs.begin_log("worker")
    logging.setLogRecordFactory(factory)
    logging.getLogger("any").warning("x")
    assert not (volume / "logs").exists()

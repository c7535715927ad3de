"""The audit log: what is changed, removed, moved or cut off is found."""

import json
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safelight.audit import log
from safelight.audit.actors import acting_as
from safelight.audit.chain import sealed
from safelight.audit.log import HEAD, files, lines, log_folder, record
from safelight.audit.verifying import verify
from safelight.cli.commands import app
from safelight.errors import DiskFullError, ForbiddenPathError
from safelight.settings import reload_settings

EVENTS = ("job.submit", "job.cancel", "key.made", "session.begun", "character.deleted")


@pytest.fixture
def written(volume: Path) -> Path:
    """A log of 20 lines, and its folder."""
    for number in range(20):
        record(EVENTS[number % 5], f"job-{number % 3}", {"number": number}, actor="account:ann")
    return log_folder()


def texts(folder: Path) -> list[bytes]:
    (only,) = files(folder)
    return only.read_bytes().splitlines(keepends=True)


def put(folder: Path, changed: list[bytes]) -> None:
    (only,) = files(folder)
    only.write_bytes(b"".join(changed))


def test_what_is_written_is_intact_and_found_again(written: Path):
    found = list(lines(written))
    assert [line.number for line in found] == list(range(1, 21))
    assert {line.actor for line in found} == {"account:ann"}
    verdict = verify(written)
    assert verdict.intact
    assert verdict.lines == 20
    assert verdict.head == f"20:{found[-1].hash}"
    assert [line.number for line in lines(written, about="job-1")] == [2, 5, 8, 11, 14, 17, 20]


@pytest.mark.parametrize("at", [0, 7, 18, 19])
@pytest.mark.parametrize("how", ["changed", "removed", "doubled", "swapped", "blanked", "invented"])
def test_whatever_is_done_to_a_line_is_found(written: Path, at: int, how: str):
    kept = texts(written)
    if how == "changed":
        kept[at] = kept[at].replace(b"account:ann", b"account:bob")
    elif how == "removed":
        del kept[at]
    elif how == "doubled":
        kept.insert(at, kept[at])
    elif how == "swapped":
        other = at - 1 if at else 1
        kept[at], kept[other] = kept[other], kept[at]
    elif how == "blanked":
        kept[at] = b"\n"
    else:
        fields = json.loads(kept[at])
        del fields["hash"]
        kept[at], _ = sealed({**fields, "actor": "account:bob"})  # with a hash that fits it
    put(written, kept)
    assert not verify(written).intact


@pytest.mark.parametrize("kept", [0, 1, 19])
def test_what_is_cut_off_is_missed(written: Path, kept: int):
    put(written, texts(written)[:kept])
    (finding,) = verify(written).findings
    assert finding == f"lines {kept + 1} to 20 are missing at the end"
    record("job.submit")  # it goes on, and the hole stays
    found = verify(written).findings
    assert [each for each in found if f"lines {kept + 1} to 20" in each or "1 to 20" in each]


def test_a_file_that_is_removed_is_missed(written: Path):
    files(written)[0].unlink()
    assert verify(written).findings == ["lines 1 to 20 are missing at the end"]
    record("job.submit")
    assert not verify(written).intact


def test_a_lost_head_is_told_for_ever(written: Path):
    put(written, texts(written)[:15])
    (written / HEAD).unlink()
    assert not verify(written).intact
    record("job.submit")
    assert [line.event_type for line in lines(written)][-2:] == [log.HEAD_LOST, "job.submit"]
    (finding,) = verify(written).findings
    assert "head.json was lost" in finding


def test_a_whole_log_that_is_made_anew_is_found_by_a_known_line(written: Path):
    number, _, digest = str(verify(written).head).partition(":")
    assert verify(written, (int(number), digest)).intact
    for path in [*files(written), written / HEAD]:
        path.unlink()
    for _ in range(20):
        record("job.submit", actor="account:bob")
    assert verify(written).intact
    (finding,) = verify(written, (int(number), digest)).findings
    assert "line 20, which is known" in finding


def test_what_a_killed_process_leaves_is_set_right(written: Path):
    before = (written / HEAD).read_bytes()
    record("job.submit", "job-9")
    (written / HEAD).write_bytes(before)  # it died before it could say so
    assert verify(written).intact
    with files(written)[0].open("ab") as file:
        file.write(b'{"number": 22, "half')
    record("job.cancel", "job-9")
    verdict = verify(written)
    assert verdict.intact, verdict.findings
    assert [line.event_type for line in lines(written, about="job-9")] == [
        "job.submit",
        "job.cancel",
    ]


def test_old_days_go_and_the_rest_can_be_verified(written: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAFELIGHT_AUDIT_DAYS", "30")
    reload_settings()
    head = json.loads((written / HEAD).read_bytes())
    for days, count in ((60, 0), (40, 3), (10, 3)):
        name = f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d}.jsonl"
        if days == 60:
            files(written)[0].rename(written / name)
            head["file"] = name
        else:  # as if the days between had passed
            (written / name).touch()
            head |= {"file": name, "bytes": 0}
        (written / HEAD).write_text(json.dumps(head))
        with monkeypatch.context() as then:
            then.setattr(log, "_rolled", lambda folder, head, path: head)
            for _ in range(count):
                record("job.submit", actor="account:ann")
        head = json.loads((written / HEAD).read_bytes())
    assert verify(written).intact
    record("job.submit", "today")
    assert len(files(written)) == 2
    found = list(lines(written))
    assert [line.number for line in found] == [24, 25, 26, 27, 28]
    assert found[3].event_type == log.EXPIRED
    verdict = verify(written)
    assert verdict.intact, verdict.findings
    files(written)[0].unlink()  # which nobody says is over
    assert verify(written).findings == ["lines 1 to 26 are missing at the beginning"]


def _write(root: str, name: str) -> None:
    os.environ["VOLUME_ROOT"] = root
    reload_settings()
    with acting_as(name):
        for _ in range(25):
            record("job.submit", name)


def test_several_processes_write_one_chain(volume: Path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(str(volume), f"w{n}")) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    verdict = verify(log_folder())
    assert (verdict.intact, verdict.lines) == (True, 100), verdict.findings
    assert {line.actor for line in lines(log_folder())} == {"w0", "w1", "w2", "w3"}


def test_threads_of_a_process_write_together_each_as_who_it_acts_for(volume: Path):
    def write(name: str) -> None:
        with acting_as(name):
            for number in range(20):
                record("job.submit", f"{name}-{number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, [f"t{n}" for n in range(8)]))
    found = list(lines(log_folder()))
    assert verify(log_folder()).intact
    assert len({line.subject for line in found}) == len(found) == 160
    assert all(line.subject.startswith(f"{line.actor}-") for line in found)
    for name in ("t0", "t7"):  # of one thread in its order
        mine = [line.subject for line in found if line.actor == name]
        assert mine == [f"{name}-{number}" for number in range(20)]


def test_it_is_for_its_owner_and_of_one_line_each(volume: Path):
    record("job.submit", 'x"}\n{"y', {"reason": "a\nb" * 5000, "n": 3, "nothing": None})
    (line,) = lines(log_folder())
    assert len(str(line.details["reason"])) == log.LONGEST_DETAIL
    assert line.details["n"] == 3
    for path in (*files(log_folder()), log_folder() / HEAD):
        assert path.stat().st_mode & 0o077 == 0


def test_a_log_that_cannot_be_written_is_refused(volume: Path):
    log_folder().parent.mkdir(parents=True)
    log_folder().write_text("no folder")
    with pytest.raises(ForbiddenPathError, match="cannot be written"):
        record("job.submit")
    if Path("/dev/full").exists():
        log_folder().unlink()
        log_folder().mkdir()
        (log_folder() / f"{datetime.now(UTC):%Y-%m-%d}.jsonl").symlink_to("/dev/full")
        (log_folder() / HEAD).write_text(
            f'{{"number": 0, "hash": "{"0" * 64}", "bytes": 0, '
            f'"file": "{datetime.now(UTC):%Y-%m-%d}.jsonl"}}'
        )
        with pytest.raises(DiskFullError):
            record("job.submit")


def test_the_command_lists_and_verifies(written: Path):
    cli = CliRunner()
    rows = cli.invoke(app, ["audit", "list", "--event", "key.", "--last", "2"]).output.splitlines()
    assert [row.split("\t")[0] for row in rows] == ["number", "13", "18"]
    found = json.loads(cli.invoke(app, ["audit", "list", "--subject", "job-1", "--json"]).output)
    assert [line["number"] for line in found] == [2, 5, 8, 11, 14, 17, 20]
    assert cli.invoke(app, ["audit", "list", "--actor", "bob", "--json"]).output.strip() == "[]"
    done = cli.invoke(app, ["audit", "verify"])
    assert done.exit_code == 0
    assert done.output.startswith("20 lines, intact, head 20:")
    head = done.output.split()[-1]
    assert cli.invoke(app, ["audit", "verify", "--known", head]).exit_code == 0
    assert cli.invoke(app, ["audit", "verify", "--known", "x"]).exit_code == 1
    put(written, texts(written)[:19])
    done = cli.invoke(app, ["audit", "verify"])
    assert done.exit_code == 1
    assert "lines 20 to 20 are missing at the end" in done.output
    facts = json.loads(cli.invoke(app, ["audit", "verify", "--json"]).output)
    assert not facts["intact"]

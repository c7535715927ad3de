"""Whatever a decoder does, its file is refused with a code and the next file is taken."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from safelight.confined import calling
from safelight.confined.calling import call_confined
from safelight.errors import InvalidMediaError, MissingFileError
from safelight.settings import reload_settings
from tests.confined import misbehaving

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True, scope="module")
def functions_found() -> Iterator[None]:
    """The process finds the functions of these tests."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("PYTHONPATH", str(CHECKOUT))
        calling._processes.end()
        yield
    calling._processes.end()


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("safelight.confined.limits.BUSY", 60)
    monkeypatch.setenv("SAFELIGHT_LOOK_SECONDS", "1")
    monkeypatch.setenv("SAFELIGHT_LOOK_MEMORY_GIB", "0.25")
    monkeypatch.setenv("SAFELIGHT_MAX_INPUT_MEGAPIXELS", "1")
    reload_settings()
    yield
    monkeypatch.undo()
    reload_settings()


def call(function: Callable[..., object], *given: object, data: bytes | None = None) -> object:
    return call_confined(function, *given, name="photo.xyz", file_bytes=0, data=data)  # type: ignore[arg-type]


def test_what_is_found_comes_back():
    found, array = call(misbehaving.told, 2, data=b"word")
    assert found == ["word", "word"]
    assert array.tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert array.dtype == np.uint8
    array[:] = 0  # its own


def test_one_process_serves_one_file_after_the_other():
    (first, _), _ = call(misbehaving.who)
    (second, _), _ = call(misbehaving.who)
    assert first == second != os.getpid()


def test_no_keys_are_handed_on(monkeypatch: pytest.MonkeyPatch):
    calling._processes.end()
    monkeypatch.setenv("SAFELIGHT_S3_SECRET_KEY", "secret-of-the-store")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:secret")
    (_, environment), _ = call(misbehaving.who)
    assert "secret" not in str(environment)


@pytest.mark.parametrize(
    ("misbehaves", "given", "problem", "remedy"),
    [
        (misbehaving.takes_memory, (1000,), "more than 0.2 GiB of memory", "LOOK_MEMORY_GIB"),
        (misbehaving.takes_memory_in_c, (1000,), "crash (SIGSEGV)", "another program"),
        (misbehaving.loops, (), "more than 1 s of a processor", "LOOK_SECONDS"),
        (misbehaving.crashes, (), "crash (SIGSEGV)", "another program"),
        (misbehaving.aborts, (), "crash (SIGABRT)", "another program"),
        (misbehaving.ends, (), "crash (status 3)", "another program"),
        (misbehaving.is_killed, (), "of memory", "LOOK_MEMORY_GIB"),
        (misbehaving.raises, (), "IndexError: of a list that is too short", "export"),
        (misbehaving.asserts, (), "AssertionError in asserts of misbehaving", "export"),
        (misbehaving.talks, (), "an answer of", "export"),
        (misbehaving.draws, (), "its result is too large", "export"),
        (misbehaving.says_what_it_is_not, (), "no answer", "export"),
    ],
)
@pytest.mark.usefixtures("tight")
def test_a_file_that_harms_its_decoder_is_refused(
    misbehaves: Callable[..., object], given: tuple[object, ...], problem: str, remedy: str
):
    with pytest.raises(InvalidMediaError) as refused:
        call(misbehaves, *given)
    assert "photo.xyz" in refused.value.problem
    assert problem in refused.value.problem
    assert remedy in refused.value.remedy
    assert call(misbehaving.told, 1, data=b"next")[0] == ["next"]


@pytest.mark.usefixtures("tight")
def test_a_file_that_brings_its_decoder_to_a_stand_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("safelight.confined.limits.BUSY", 1)
    with pytest.raises(InvalidMediaError, match=r"photo\.xyz took more than 1 s"):
        call(misbehaving.sleeps)


@pytest.mark.usefixtures("tight")
def test_no_file_grows_without_end(tmp_path: Path):
    with pytest.raises(InvalidMediaError):
        call(misbehaving.writes, str(tmp_path / "made"))
    assert (tmp_path / "made").stat().st_size <= 4_000_000


def test_refusals_come_as_they_are():
    with pytest.raises(MissingFileError) as refused:
        call(misbehaving.refuses)
    assert (refused.value.problem, refused.value.remedy) == ("there is none", "bring one")


def test_a_message_that_is_none_ends_the_process():
    (process, _), _ = call(misbehaving.who)
    handles = {int(n): os.readlink(f"/proc/{process}/fd/{n}") for n in _handles(process)}
    theirs = next(number for number, leads in handles.items() if leads.startswith("socket:"))
    with pytest.raises(InvalidMediaError, match=r"photo\.xyz made a decoder give"):
        call(misbehaving.forges, theirs)
    assert call(misbehaving.who)[0][0] != process


def _handles(process: int) -> list[str]:
    return os.listdir(f"/proc/{process}/fd")


@pytest.mark.slow
@pytest.mark.usefixtures("tight")
def test_time_grows_with_the_file():
    with pytest.raises(InvalidMediaError, match=r"more than 3 s of a processor"):
        call_confined(misbehaving.loops, name="photo.xyz", file_bytes=2 * 2**20)


def test_it_is_replaced_after_many_files(monkeypatch: pytest.MonkeyPatch):
    (first, _), _ = call(misbehaving.who)
    monkeypatch.setattr(calling, "CALLS", 1)
    assert call(misbehaving.who)[0][0] == first
    assert call(misbehaving.who)[0][0] != first


def test_a_copy_of_this_process_looks_by_itself():
    (first, _), _ = call(misbehaving.who)
    copy = os.fork()
    if copy == 0:
        status = 1
        try:
            (other, _), _ = call(misbehaving.who)
            status = 0 if other != first else 2
            calling._processes.end()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 0
    assert call(misbehaving.who)[0][0] == first

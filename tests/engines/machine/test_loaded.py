"""One copy of a model per process, the least recently used dropped first."""

import threading
from collections.abc import Iterator

import pytest

from safelight.engines.machine.loaded import forget_loaded, loaded, loaded_stats
from safelight.settings import settings


@pytest.fixture(autouse=True)
def _two_gib(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SAFELIGHT_MODEL_MEMORY_GIB", "2")
    settings.cache_clear()
    forget_loaded()
    yield
    forget_loaded()
    settings.cache_clear()


def test_a_key_is_loaded_once():
    before = loaded_stats()
    first = loaded(("a",), object, 5)
    assert loaded(("a",), object, 5) is first
    after = loaded_stats()
    assert (after.loads - before.loads, after.hits - before.hits) == (1, 1)
    assert (after.kept, after.kept_bytes) == (1, 5)


def test_the_least_recently_used_goes_first():
    first = loaded(("a",), object, 2**30)
    loaded(("b",), object, lambda _: 2**30)
    assert loaded(("a",), object, 0) is first
    loaded(("c",), object, 2**30)  # b is the one not asked for lately
    assert loaded(("a",), object, 0) is first
    before = loaded_stats().loads
    loaded(("b",), object, 2**30)
    assert loaded_stats().loads == before + 1


def test_one_model_above_the_limit_is_still_kept():
    large = loaded(("large",), object, 2**40)
    assert loaded(("large",), object, 0) is large


def test_threads_that_ask_together_share_one_load():
    together, made, got = threading.Barrier(4), list[object](), list[object]()

    def load() -> object:
        made.append(object())
        return made[-1]

    def ask() -> None:
        together.wait()
        got.append(loaded(("shared",), load, 1))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert all(model is made[0] for model in got)


def test_another_model_need_not_wait():
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> object:
        inside.set()
        assert go_on.wait(60)
        return object()

    thread = threading.Thread(target=loaded, args=(("slow",), slow, 1))
    thread.start()
    assert inside.wait(60)
    loaded(("quick",), object, 1)
    go_on.set()
    thread.join()


def test_a_load_that_fails_leaves_nothing_behind():
    def fail() -> object:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        loaded(("x",), fail, 1)
    assert loaded(("x",), lambda: "here", 1) == "here"

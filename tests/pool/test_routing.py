from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from safelight.pool.devices import Device
from safelight.pool.routing import KEPT_KEYS, choose, fits, remember

KEYS = st.sampled_from("abcdef")


@dataclass
class Seat:
    device: Device = field(default_factory=lambda: Device("cuda:0", "cuda", 24.0, ()))
    warm: list[str] = field(default_factory=list)


@given(st.lists(st.lists(KEYS, unique=True, max_size=4), min_size=1, max_size=5), KEYS)
def test_a_process_that_has_the_model_is_preferred_then_the_emptiest(warm, key):
    seats = [Seat(warm=keys) for keys in warm]
    chosen = choose(seats, key)
    if any(key in seat.warm for seat in seats):
        assert key in chosen.warm
    else:
        assert len(chosen.warm) == min(len(seat.warm) for seat in seats)


@given(st.lists(st.text(max_size=3), max_size=40))
def test_the_latest_keys_are_remembered_once_each(keys):
    seat = Seat()
    for key in keys:
        remember(seat, key)
    latest = list(dict.fromkeys(reversed(keys)))[:KEPT_KEYS]
    assert seat.warm == latest[::-1]


def test_a_run_gets_the_device_and_memory_it_asks_for():
    gpu, cpu = Device("cuda:0", "cuda", 24.0, ()), Device("cpu:0", "cpu", 64.0, ())
    assert fits(gpu, "cuda", 24.0)
    assert not fits(gpu, "cuda", 24.1)
    assert not fits(gpu, "cpu", 0)
    assert fits(cpu, "any", 0)
    assert not fits(cpu, "any", 1.0)  # it has no VRAM

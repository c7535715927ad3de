"""Sizes of shards, in simulated time: devices of different speed end together."""

import heapq
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from flows.batching.shards import KNOWN, Sizes

BETWEEN_SECONDS = 1.0
"""What a run costs besides its requests."""


def simulated(
    count: int, seconds: float, speeds: tuple[float, ...], places: int
) -> tuple[list[int], list[float]]:
    """Requests that each device has worked on, and when its last shard ended.

    Shards wait in one queue, as runs do in a work pool; a device that is free takes the next.
    """
    sizes, left, queue = Sizes(), count, deque[int]()
    working: list[tuple[float, int, int]] = []
    free = sorted(range(len(speeds)), key=lambda device: -speeds[device])
    worked, ended = [0] * len(speeds), [0.0] * len(speeds)
    now = 0.0
    while left or queue or working:
        while left and len(queue) + len(working) < places:
            size = sizes.next(left, places)
            left -= size
            queue.append(size)
        while queue and free:
            device, size = free.pop(0), queue.popleft()
            until = now + BETWEEN_SECONDS + size * seconds / speeds[device]
            heapq.heappush(working, (until, device, size))
        now, device, size = heapq.heappop(working)
        free.append(device)
        worked[device] += size
        ended[device] = now
        for _ in range(min(size, KNOWN)):
            sizes.took(seconds / speeds[device])
    return worked, ended


@given(
    count=st.integers(200, 5000),
    seconds=st.floats(0.1, 2.0),
    speed=st.floats(1.5, 4.0),
    places=st.integers(4, 8),
)
def test_the_faster_of_two_gets_more_and_both_end_together(
    count: int, seconds: float, speed: float, places: int
):
    (slow, fast), ended = simulated(count, seconds, (1.0, speed), places)
    assert slow + fast == count
    assert fast > slow
    assert max(ended) - min(ended) <= 0.05 * max(ended)

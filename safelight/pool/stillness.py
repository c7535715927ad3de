"""Replaces processes that stand still: stopped, stuck in a library, or long without a step."""

from collections.abc import Mapping
from uuid import UUID

import anyio
from prefect.logging import get_logger

from safelight.pool.process import WarmProcess
from safelight.pool.watching import Running
from safelight.settings import settings

LOG = get_logger("safelight.pool")
LOOK_SECONDS = 2.0
"""How often the signs of life are looked at."""


class Silence:
    """How long a process has been silent.

    Counted in looks rather than by the clock: when this worker itself stood still, all that its
    processes said meanwhile waits to be read.
    """

    def __init__(self) -> None:
        self._pulses: int | None = None
        self.seconds = 0.0
        """Time of the looks since its last sign of life."""

    def look(self, pulses: int) -> None:
        """Note how many signs of life there were so far."""
        self.seconds = self.seconds + LOOK_SECONDS if pulses == self._pulses else 0.0
        self._pulses = pulses


def stillness(process: WarmProcess, silence: Silence) -> str:
    """Why a process counts as standing still; empty when it does not."""
    known = settings()
    if silence.seconds >= known.pool_silence_seconds:
        return f"it gave no sign of life for {silence.seconds:.0f} s"
    if process.still_seconds >= known.pool_stall_seconds:
        return f"its stage made no step for {process.still_seconds:.0f} s"
    return ""


async def replace_still_ones(runs: Mapping[UUID, Running]) -> None:
    """Kill processes that stand still, so that their runs go on in others.

    Args:
        runs: those in processes of this worker, as they come and go.
    """
    silences: dict[UUID, Silence] = {}
    while True:
        await anyio.sleep(LOOK_SECONDS)
        for gone in silences.keys() - runs.keys():
            del silences[gone]
        for run_id, running in list(runs.items()):
            silence = silences.setdefault(run_id, Silence())
            silence.look(running.process.pulses)
            why = stillness(running.process, silence)
            if why and running.process.alive:
                LOG.warning("flow run %s: its process is replaced, %s", run_id, why)
                running.process.kill(why)
                del silences[run_id]

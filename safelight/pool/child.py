"""Runs flow runs in this process, whose models stay loaded from one to the next.

`python -m safelight.pool.child --flow-run-id ID` runs one and ends with status 0 when it
completed, 1 otherwise.
"""

import argparse
import signal
import sys
from types import FrameType
from typing import cast
from uuid import UUID

from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.flow_engine import load_flow, load_flow_run, run_flow

from safelight.progress import clear_stop, request_stop, stop_requested
from safelight.settings import reload_settings


def run_once(flow_run_id: UUID) -> bool:
    """Run one flow run on the main thread and tell whether it completed.

    The first SIGTERM or SIGINT asks its stages to stop at their next step, so that it ends as
    Cancelled and keeps what is finished; the second ends it at once.
    """
    clear_stop()
    reload_settings()
    flow_run = load_flow_run(flow_run_id)
    flow = load_flow(flow_run)
    state = cast("State[object]", run_flow(flow, flow_run=flow_run, return_type="state"))
    return state.is_completed()


def on_signal(number: int, frame: FrameType | None) -> None:
    """Ask politely, then end."""
    del frame
    if stop_requested():
        raise TerminationSignal(signal=number)
    request_stop()


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=run_once.__doc__)
    parser.add_argument("--flow-run-id", type=UUID, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return 0 if run_once(arguments.flow_run_id) else 1


if __name__ == "__main__":
    sys.exit(main())

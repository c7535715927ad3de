"""Entry point of the `safelight` command, and the edge at which everything becomes a status.

Only what is needed to answer Ctrl-C is imported before the signals are in place: the rest takes a
second, in which people press it too.
"""

import gc
import os
import signal
import sys
from types import FrameType

from safelight.garbage import collect_seldom

_STOPPED: list[int] = []
"""Signals that came, in order."""


def _on_signal(number: int, frame: FrameType | None) -> None:
    del frame
    _STOPPED.append(number)
    raise KeyboardInterrupt


def stopped_status() -> int:
    """Exit status after a signal: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (_STOPPED[0] if _STOPPED else signal.SIGINT)


def main() -> None:
    """Run the command; SIGTERM ends it as Ctrl-C does, also where SIGINT is ignored."""
    signal.signal(signal.SIGTERM, _on_signal)
    signal.signal(signal.SIGINT, _on_signal)
    collect_seldom()
    try:
        from safelight.cli.edge import guarded

        status = guarded(sys.argv[1:])
    except KeyboardInterrupt:
        status = stopped_status()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to stop
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        sys.stdout.flush()
    except OSError:  # who read our output has gone, for instance head
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    gc.freeze()  # the interpreter would look through all of it once more
    sys.exit(status)

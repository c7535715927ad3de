"""What signals ask of `safelight up`."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, time
from safelight.cli.supervising import counted_signals

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
with counted_signals() as signals:
    print("here", flush=True)
    while not signals.asked:
        time.sleep(0.01)
print("over", flush=True)
time.sleep(0.5)  # the server is stopped
print(signals.asked, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_who_was_told_to_stop_is_not_killed_by_being_told_again(number: signal.Signals):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True
    ) as told:
        assert told.stdout is not None
        assert told.stdout.readline() == "here\n"
        told.send_signal(number)
        assert told.stdout.readline() == "over\n"
        told.send_signal(number)
        assert told.stdout.readline() == "1\n"
        told.send_signal(number)
        assert told.wait(60) == 0

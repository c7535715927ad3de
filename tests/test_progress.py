"""Ends of processes that wait for what may never come."""

import subprocess
import sys

WAITS = """
import atexit, threading, time
from safelight.progress import end_in
atexit.register(time.sleep, 600)
threading.Thread(target=time.sleep, args=(600,)).start()
end_in({seconds})
"""


def test_a_process_ends_though_threads_and_clean_ups_wait():
    ended = subprocess.run(
        [sys.executable, "-c", WAITS.format(seconds=0.2)], timeout=60, check=False
    )
    assert ended.returncode == 1


def test_a_process_that_ends_by_itself_does_not_wait_for_it():
    quick = "from safelight.progress import end_in\nend_in(600)"
    assert subprocess.run([sys.executable, "-c", quick], timeout=60, check=False).returncode == 0

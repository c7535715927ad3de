"""The line between a worker and its warm process, and how either learns that the other is gone."""

import os
import socket
import subprocess
import sys

import pytest

from safelight.pool.messages import lines_of
from tests.prefect_pool import Project


def test_lines_come_until_the_other_side_has_gone():
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(b"one\ntwo\n")
        theirs.close()
        assert list(lines_of(ours)) == ["one\n", "two\n"]


def test_a_line_that_was_cut_short_is_none():
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(b'{"whole": 1}\n{"kind": "en')
        theirs.close()
        assert list(lines_of(ours)) == ['{"whole": 1}\n']


def test_who_closes_before_it_has_read_everything_has_gone():
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b"nobody reads this\n")
        theirs.close()
        assert list(lines_of(ours)) == []


@pytest.mark.slow
def test_a_process_ends_when_its_worker_dies_before_it_has_read_what_it_was_told(project: Project):
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "safelight.pool.child", str(theirs.fileno())],
            env={**os.environ, **project.environment},
            pass_fds=[theirs.fileno()],
        )
    try:
        with ours:
            ours.recv(1, socket.MSG_PEEK)  # it has spoken, and nobody takes a word
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()

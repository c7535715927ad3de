"""A worker that is the first process of a container collects what others leave behind, alone."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from prefect.client.schemas.objects import StateType

from tests.prefect_pool import Pool, eventually

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has subreapers and namespaces of processes"
)
PHOTO = Path(__file__).resolve().parents[2] / "examples" / "astronaut.png"
SUBREAPER = """
import ctypes, os, sys
if os.getpid() != 1:
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
os.execvp(sys.argv[1], sys.argv[1:])
"""
LIVES = """
    import asyncio, subprocess, sys
    from pathlib import Path
    from safelight.pool.reaping import collect_strangers, is_reaper

    def stranger():
        # the shell ends at once, and its child is ours then, for a moment
        made = subprocess.run(
            ["sh", "-c", "sleep 0.1 >/dev/null & echo $!"], capture_output=True, text=True
        )
        return Path("/proc", made.stdout.strip(), "stat")

    def dead(stat):
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"

    async def main():
        assert is_reaper()
        ours = [subprocess.Popen(["sh", "-c", f"exit {code}"]) for code in (7, 8)]
        theirs = await asyncio.create_subprocess_exec("sh", "-c", "sleep 0.3; exit 5")
        one, two = stranger(), stranger()
        while not (dead(one) and dead(two)):
            await asyncio.sleep(0.02)
        if sys.argv[1] == "collect":
            looking = asyncio.create_task(collect_strangers(0.05))
            while one.exists() or two.exists():
                await asyncio.sleep(0.02)
            later = stranger()
            while later.exists():
                await asyncio.sleep(0.02)
            looking.cancel()
        else:
            assert dead(one) and dead(two)
        print([each.wait() for each in ours], await theirs.wait(), flush=True)

    asyncio.run(main())
"""


def namespaced() -> tuple[str, ...]:
    """Words before a command that make it the first process of its own namespace, if allowed."""
    words = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    if os.geteuid() == 0:
        words = ("unshare", "--pid", "--fork", "--mount-proc")
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], check=False).returncode:
        pytest.skip("this machine gives nobody a namespace of processes")
    return words


@pytest.mark.parametrize("what", ["collect", "leave"])
@pytest.mark.parametrize("place", ["subreaper", "first of a namespace"])
def test_strangers_are_collected_and_statuses_stay_with_those_who_wait(place: str, what: str):
    before = namespaced() if place != "subreaper" else ()
    done = subprocess.run(
        [
            *(*before, sys.executable, "-c", SUBREAPER),
            *(sys.executable, "-c", textwrap.dedent(LIVES), what),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.strip() == "[7, 8] 5", done.stderr


def test_nobody_looks_where_no_stranger_comes():
    code = (
        "import asyncio; from safelight.pool.reaping import *;"
        "assert not is_reaper(); asyncio.run(collect_strangers())"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=100, check=False).returncode == 0


def test_what_a_killed_process_had_started_does_not_stay(pool: Pool):
    uploads = pool.project.folder / "volume" / "uploads"
    uploads.mkdir(parents=True)
    picture = shutil.copy(PHOTO, uploads / "photo.png")
    worker = pool.start_worker(prefix=(sys.executable, "-c", SUBREAPER))
    run = pool.create("looks", {"restarts": 0}, image=str(picture), number=1)
    assert pool.end(run).type == StateType.CRASHED
    eventually(lambda: "collected what was left of processes" in pool.log())
    left = [
        child
        for child in psutil.Process(worker.pid).children()
        if child.status() == psutil.STATUS_ZOMBIE
    ]
    assert left == []

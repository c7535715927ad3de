"""Child processes end with their parent, however it ends."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from safelight.children import start_child, stop_child
from tests.prefect_pool import eventually

PARENT = """
    import subprocess, sys, threading, time
    from safelight.children import start_child

    children = []

    def start():
        children.append(start_child("sleeper", sys.argv[2:]))

    if sys.argv[1] == "thread":  # one that ends long before the process does
        starting = threading.Thread(target=start)
        starting.start()
        starting.join()
    else:
        start()
    print(children[0].pid, flush=True)
    time.sleep(600)
"""
SLEEPER = """
    import signal, sys, time

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(sys.argv[1], "w").write("here")
    if len(sys.argv) > 2:  # hold Python's lock, so that none of its threads goes on
        import re
        re.match("(a*)*b", "a" * 64)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sleeper.py").write_text(textwrap.dedent(SLEEPER))
    (tmp_path / "parent.py").write_text(textwrap.dedent(PARENT))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def started(folder: Path, *arguments: str) -> tuple["subprocess.Popen[str]", psutil.Process]:
    """A parent and its child, which has begun."""
    mark = folder / "mark"
    parent = subprocess.Popen(
        [sys.executable, folder / "parent.py", arguments[0], mark, *arguments[1:]],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    eventually(lambda: mark.exists() and mark.read_text())
    return parent, child


@pytest.mark.parametrize("how", ["main", "thread"])
def test_a_child_ends_when_its_parent_is_killed(folder: Path, how: str):
    parent, child = started(folder, how)
    with parent:
        assert child.is_running()  # also where the thread that asked for it is gone
        parent.kill()
    eventually(lambda: not child.is_running())


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux sees to it")
def test_so_does_one_in_which_no_thread_goes_on(folder: Path):
    parent, child = started(folder, "main", "busy")
    with parent:
        parent.kill()
    eventually(lambda: not child.is_running())


def test_the_pipe_alone_ends_it(folder: Path):
    """As on systems whose kernel sends nothing."""
    theirs, ours = os.pipe()
    code = (
        "import sys; sys.platform = 'other'; import safelight.children as c;"
        f"sys.argv = ['c', '{os.getpid()}', '{theirs}', 'sleeper', '{folder / 'mark'}']; c.main()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs])
    os.close(theirs)
    eventually((folder / "mark").exists)
    assert child.poll() is None
    os.close(ours)
    assert child.wait(60) == -signal.SIGKILL


def test_a_parent_that_was_gone_before_is_noticed(folder: Path):
    theirs, ours = os.pipe()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    child = subprocess.Popen(
        [sys.executable, "-m", "safelight.children", str(gone.pid), str(theirs), "sleeper", "-"],
        pass_fds=[theirs],
    )
    assert child.wait(60) == -signal.SIGKILL
    os.close(theirs)
    os.close(ours)


def test_one_that_does_not_heed_sigterm_is_killed(folder: Path):
    mark = folder / "mark"
    child = start_child("sleeper", [str(mark)])
    eventually(mark.exists)
    stop_child(child, grace_seconds=0.2)
    assert child.returncode == -signal.SIGKILL


def test_the_module_gets_its_arguments_and_environment(folder: Path):
    (folder / "telling.py").write_text(
        "import os, sys\n"
        "if __name__ == '__main__':\n"
        "    print(sys.argv[1:], os.environ.get('WHO'), os.getcwd())\n"
    )
    with (folder / "out").open("wb") as out:
        child = start_child(
            "telling",
            ["one", "--two"],
            environment={**os.environ, "WHO": "me"},
            folder=folder,
            output=out,
        )
        assert child.wait(60) == 0
    assert (folder / "out").read_text() == f"['one', '--two'] me {folder}\n"


def test_no_module_comes_from_the_folder_that_a_child_works_in(folder: Path):
    work = folder / "pictures"
    work.mkdir()
    (work / "colorsys.py").write_text("")
    (folder / "reader.py").write_text(
        "import colorsys, sys\nopen(sys.argv[1], 'w').write(colorsys.__file__)\n"
    )
    assert start_child("reader", [str(folder / "mark")], folder=work).wait(60) == 0
    assert not (folder / "mark").read_text().startswith(str(work))

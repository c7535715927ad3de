"""Locks by which containers that share a volume see whether each other's processes still live.

The number of a process says nothing outside its container; a lock on a file goes with the process
that holds it, whoever asks. All containers of one machine have one kernel, so one table of locks;
between machines that share a disk not every file system keeps one, so there nobody asks.
"""

import atexit
import fcntl
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from safelight.private import make_folder, mask
from safelight.process_identity import here, own_start
from safelight.settings import settings

KEPT_SECONDS = 8 * 24 * 3600
"""A lock outlives its process so long: longer than what the process left, whoever cleans it up."""
_FOLDER = Path("cache") / "owners"
_lock = threading.Lock()
_claimed: dict[tuple[int, Path], int] = {}
"""Handles by process and file: a forked process has claims of its own."""


def owner() -> str:
    """This process, as no other one is called on any machine."""
    return f"{os.getpid()}-{here().tag}.{own_start()}"


def claim() -> str:
    """Hold this process's lock until it ends.

    Returns:
        The process's name, `owner()`. Without a volume, or where files cannot be locked, there is
        no lock, and others go by the age of what we leave.
    """
    name = owner()
    root = settings().volume_root.resolve()
    path = root / _FOLDER / name
    with _lock:
        if (os.getpid(), path) not in _claimed and root.is_dir():
            with suppress(OSError):
                _claimed[os.getpid(), path] = _locked(path)
                atexit.register(_release, os.getpid(), path)
    return name


def has_ended(name: str) -> bool | None:
    """Whether the process of another container of this machine is gone; None when nobody knows."""
    path = settings().volume_root / _FOLDER / name
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # it made no lock, or one that we may not ask
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return None
    else:
        return True
    finally:
        os.close(handle)


def sweep_claims() -> None:
    """Remove the locks that nobody holds any more and that nothing half-made can need."""
    forgotten = time.time() - KEPT_SECONDS
    with suppress(OSError):
        for path in (settings().volume_root / _FOLDER).iterdir():
            if path.lstat().st_mtime < forgotten and has_ended(path.name):
                path.unlink(missing_ok=True)


def _locked(path: Path) -> int:
    make_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666 & ~mask())
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # who asks after us holds it for a moment
    except OSError:
        os.close(handle)
        path.unlink(missing_ok=True)
        raise
    return handle


def _release(pid: int, path: Path) -> None:
    if pid == os.getpid():
        path.unlink(missing_ok=True)

"""Weights opened once: what was looked into and hashed is what is loaded.

Libraries open weights by name, and between the look at a name and the load another file may be put
in its place. So all files of a model are opened here, and the libraries are given a folder of names
that lead to the open files.
"""

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from stat import S_ISREG
from tempfile import TemporaryDirectory

from safelight.errors import ChecksumMismatchError, InvalidMediaError
from safelight.weights.hashing import combined, entries_of, sha256_of_handle, stamp_of
from safelight.weights.safety import check_weights

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe does not keep us


@contextmanager
def pinned(path: Path, sha256: str, *, shipped: bool = False) -> Generator[Path]:
    """A path to load from, as long as the `with` lasts, of files that have this sha256.

    Args:
        path: a single file, or a folder.
        sha256: as `weights_sha256` told it.
        shipped: see `check_weights`.

    Raises:
        ChecksumMismatchError: there are other files now, or they were written to meanwhile.
        InvalidMediaError: one of them is no plain file.
        UnsafePickleError: one of them could run code.
    """
    with ExitStack() as held:
        opened = {name: held.enter_context(_opened(file)) for name, file in _files(path)}
        stamps = {name: stamp_of(os.fstat(handle)) for name, handle in opened.items()}
        hashes = {name: sha256_of_handle(handle, path / name) for name, handle in opened.items()}
        if (found := combined(hashes)) != sha256:
            raise _changed(path, f"has sha256 {found} now, expected {sha256}")
        folder = Path(held.enter_context(TemporaryDirectory(prefix="weights-")))
        view = _view(path, opened, folder)
        check_weights(view, shipped=shipped)
        yield view
        for name, handle in opened.items():
            # a name that was taken away changes the stamp too, but not what was loaded
            if stamp_of(os.fstat(handle)) == stamps[name]:
                continue
            if sha256_of_handle(handle, path / name) != hashes[name]:
                raise _changed(path, "was written to while it was loaded")


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Each file with its name below the path; "." is the path itself."""
    if not path.is_dir():
        yield ".", path
        return
    for file in sorted(entries_of(path)):
        if not file.is_dir():
            yield file.relative_to(path).as_posix(), file


@contextmanager
def _opened(file: Path) -> Generator[int]:
    try:
        handle = os.open(file, _READ)
    except OSError as error:
        raise InvalidMediaError(
            f"{file} cannot be opened: {error.strerror}", "put the file itself there"
        ) from error
    try:
        if not S_ISREG(os.fstat(handle).st_mode):
            raise InvalidMediaError(f"{file.name} is not a plain file", "put the file itself there")
        yield handle
    finally:
        os.close(handle)


def _view(path: Path, opened: dict[str, int], folder: Path) -> Path:
    """Names that lead to the open files."""
    if sys.platform != "linux":  # no such names there: a file put in its place meanwhile is loaded
        return path
    view = folder / path.name
    for name, handle in opened.items():
        link = view / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"/proc/{os.getpid()}/fd/{handle}")
    return view


def _changed(path: Path, how: str) -> ChecksumMismatchError:
    return ChecksumMismatchError(
        f"{path} {how}", "leave the files of models alone while they load, then run it again"
    )

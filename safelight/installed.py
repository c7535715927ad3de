"""Versions of installed packages."""

from functools import cache
from importlib import metadata


@cache
def version(name: str) -> str:
    """The version of an installed package, read once: a run asks for it dozens of times.

    A package that changes while a warm process runs has that process replaced.

    Raises:
        importlib.metadata.PackageNotFoundError: it is not installed.
    """
    return metadata.version(name)

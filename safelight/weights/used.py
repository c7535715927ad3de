"""Models that runs use: found through the registry, and what their licences have us say."""

import logging
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from safelight.errors import PipelineError
from safelight.weights.kinds import ModelType
from safelight.weights.licences import remark
from safelight.weights.naming import near
from safelight.weights.packaged import KNOWN
from safelight.weights.places import models_folder
from safelight.weights.registry import registry

LOG = logging.getLogger(__name__)
_SHOWN = 12
"""Characters of a sha256 that name weights of which nothing else is known."""
_PACKAGED = frozenset(KNOWN.values())
"""Weights inside packages: BSD-3-Clause and MIT, see NOTICE."""
_told: dict[str, tuple[str, str | None]] = {}
"""Name and licence by sha256, for when the registry is emptied while a run is under way."""


def registered(kind: ModelType, name: str) -> Path | None:
    """The model of this name anywhere below the models folder, or one that was registered.

    Raises:
        InvalidFieldValueError: several have this name.
        MissingFileError: it is known and no longer there.
    """
    known = registry()
    found = known.list_named(name, kind)
    if len(found) != 1 and models_folder().is_dir():
        known.scan(hashes=False)  # it may be new, or no longer one of several
        found = known.list_named(name, kind)
    return known.get_model_path(name, kind) if found else None


def near_names(kind: ModelType, name: str) -> list[str]:
    """Names of this kind that somebody may have meant."""
    return near(name, [info.name for info in registry().list_models(kind)])


@lru_cache(maxsize=1024)
def use(path: Path, sha256: str) -> None:
    """Enter a model that a run is about to use; a registry that fails keeps no run from going on.

    Args:
        path: a single file, or a folder.
        sha256: as `weights_sha256` tells it.
    """
    try:
        registry().hashed(path, sha256)
        info = registry().by_sha256(sha256)
    except PipelineError as error:
        LOG.warning("the registry does not take %s: %s", path.name, error.problem)
        return
    if info is not None:
        _told[sha256] = (info.name, info.licence)


def licence_remarks(weights: Iterable[str]) -> tuple[str, ...]:
    """What a manifest has to say about licences: which are not known, or forbid commercial use.

    Args:
        weights: sha256 of each.
    """
    said = (_remark(sha256) for sha256 in dict.fromkeys(weights) if sha256 not in _PACKAGED)
    return tuple(text for text in said if text is not None)


def _remark(sha256: str) -> str | None:
    try:
        info = registry().by_sha256(sha256)
    except PipelineError as error:
        LOG.warning("the registry does not answer: %s", error.problem)
        info = None
    known = (info.name, info.licence) if info is not None else _told.get(sha256)
    name, licence = known or (f"with sha256 {sha256[:_SHOWN]}", None)
    return remark(name, licence)

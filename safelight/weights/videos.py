"""Finds the operator's video models: diffusers folders below `video` of the models folder."""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from safelight.errors import DependencyMissingError
from safelight.weights.add_ons import find_add_on
from safelight.weights.hashing import weights_sha256
from safelight.weights.json_files import read_object
from safelight.weights.places import models_folder

FOLDER, INDEX = "video", "model_index.json"


@dataclass(frozen=True)
class VideoModel:
    """What is known about a video model without loading it."""

    name: str
    """That of its folder."""
    path: Path
    """The folder."""
    sha256: str
    """Over all of its files."""
    made_for: str
    """The pipeline class of diffusers that its index names."""


def video_names() -> tuple[str, ...]:
    """Names of the operator's video models, sorted."""
    folder = models_folder() / FOLDER
    if not folder.is_dir():
        return ()
    return tuple(sorted(path.name for path in folder.iterdir() if (path / INDEX).is_file()))


def find_video_model(name: str | None, made_for: Container[str]) -> VideoModel:
    """The video model with this name, without one the first of a kind.

    Args:
        name: that of its folder.
        made_for: pipeline classes of the kind; where a folder has none of them the first of all is
            found.

    Raises:
        ForbiddenPathError: the name is a path, or a link leads out of the folder.
        DependencyMissingError: there is no such model.
        UnsafePickleError: one of its files could run code when it is loaded.
        InvalidMediaError: its index cannot be read.
    """
    names = video_names()
    if name is None and not names:
        raise DependencyMissingError(
            f"there is no video model in {models_folder() / FOLDER}",
            "put the diffusers folder of one there, or set SAFELIGHT_MODELS_DIR",
        )
    if name is None:
        fitting = (each for each in names if _class_in(models_folder() / FOLDER / each) in made_for)
        name = next(fitting, names[0])
    path = find_add_on(FOLDER, name)
    return VideoModel(path.name, path, weights_sha256(path), _class_in(path))


def _class_in(folder: Path) -> str:
    named = read_object(folder / INDEX).get("_class_name") if folder.is_dir() else None
    return str(named)

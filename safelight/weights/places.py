"""Where models lie on this machine."""

from pathlib import Path

from safelight.settings import settings

STARTER = Path(__file__).resolve().parents[2] / "weights" / "starter"
"""The small model that comes with the checkout."""
CARDS = Path(__file__).resolve().parents[2] / "weights" / "catalog"
"""Cards of models that can be fetched."""
FACTS = "safelight.json"
"""Facts beside a model: native size, recommended settings, subjects, licence."""
PARTS, PARTS_OF_ONE = "parts", ".parts"
"""A folder of the models folder with what single files lack, by family; the end of the name of one
beside a file, which is for this file alone. None of it is a model."""


def models_folder() -> Path:
    """Where the operator's own models lie."""
    known = settings()
    return (known.models_dir or known.volume_root / "models").resolve()


def facts_file(path: Path) -> Path:
    """Where the facts about a model stand: in its folder, or beside its file."""
    return path / FACTS if path.is_dir() else path.with_suffix(".json")

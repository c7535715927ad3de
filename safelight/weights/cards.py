"""Cards of models that can be fetched: where from, how large, what content, which licence."""

from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safelight.errors import DependencyMissingError, InvalidMediaError
from safelight.weights.kinds import ModelType
from safelight.weights.naming import near
from safelight.weights.places import CARDS


class Card(BaseModel):
    """One file; all of it is known before anything is fetched."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """What it is fetched by, and called afterwards."""
    model_type: ModelType
    """What it is for."""
    source: str
    """Address: https, s3, hf: or civitai:."""
    file_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """Its name in the models folder."""
    size: int = Field(gt=0)
    """Bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the file."""
    licence: str
    """As its makers name it."""
    base_model: str | None = None
    """Family it belongs to."""
    description: str = ""
    """What it is good at."""


def cards(folder: Path = CARDS) -> dict[str, Card]:
    """All cards, by name.

    Raises:
        InvalidMediaError: a file among them is no card.
    """
    return dict(_read(folder))


@lru_cache(maxsize=4)
def _read(folder: Path) -> tuple[tuple[str, Card], ...]:
    found: list[tuple[str, Card]] = []
    for file in sorted(folder.glob("*.json")):
        try:
            card = Card.model_validate_json(file.read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise InvalidMediaError(
                f"{file} is no card of a model: {first['loc']}: {first['msg']}", "correct the card"
            ) from error
        found.append((card.name, card))
    return tuple(found)


def find_card(name: str) -> Card:
    """The card of this name.

    Raises:
        DependencyMissingError: there is none.
    """
    known = cards()
    if name in known:
        return known[name]
    alike = near(name, list(known)) or sorted(known)
    raise DependencyMissingError(
        f"the catalog has no model {name[:80]!r}; there are: {', '.join(alike) or 'none'}",
        "choose one of these, or give an address: https://..., s3://..., hf:... or civitai:...",
    )

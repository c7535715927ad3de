"""The header of a table: which parameter each column is."""

from collections import Counter
from collections.abc import Collection, Sequence
from difflib import get_close_matches

from safelight.errors import ContractMismatchError, MissingRequiredFieldError


def plain(name: str) -> str:
    """A name as parameters are written: `Guidance Scale` and `guidance-scale` are one."""
    return "_".join(name.strip().casefold().replace("-", " ").replace("_", " ").split())


def known_among(cells: Sequence[str], names: Collection[str]) -> int:
    """How many cells name a parameter."""
    return sum(cell.strip() in names or plain(cell) in names for cell in cells)


def columns(cells: Sequence[str], where: str, names: Collection[str]) -> list[str]:
    """The parameters that a header names, in its order.

    Args:
        cells: of the header.
        where: it stands.
        names: of the parameters that there are; empty when nobody knows, and all are taken.

    Raises:
        MissingRequiredFieldError: a column has no name.
        ContractMismatchError: a column names no parameter, or two name the same.
    """
    found = [_parameter(cell, where, names) for cell in cells]
    for name, count in Counter(found).items():
        if count > 1:
            raise ContractMismatchError(
                f"{where}: column {name} is there {count} times", f"keep one column {name}"
            )
    return found


def _parameter(cell: str, where: str, names: Collection[str]) -> str:
    name = cell.strip()
    if not name:
        raise MissingRequiredFieldError(
            f"{where}: a column has no name", "name every column after a parameter"
        )
    if not names or name in names:
        return name
    if plain(name) in names:
        return plain(name)
    raise unknown(f"{where}: column", name, names)


def unknown(what: str, name: str, names: Collection[str]) -> ContractMismatchError:
    """The refusal of a name that is no parameter's."""
    near = get_close_matches(plain(name), names, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return ContractMismatchError(
        f"{what} {name[:80]!r} names no parameter{meant}",
        f"name what the flow takes: {', '.join(names)}",
    )

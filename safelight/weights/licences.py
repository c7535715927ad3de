"""What licences of weights allow, as far as their names tell."""

import re

_NON_COMMERCIAL = re.compile(
    r"non[-_ ]?commercial|(^|[-_ ])nc([-_ ]|$)|research[-_ ]?only|(^|[-_ ])academic([-_ ]|$)"
    r"|for research use|personal[-_ ]use",
    re.IGNORECASE,
)
_SAYS_NOTHING = frozenset({"", "unknown", "other", "none", "null", "n/a", "custom"})
"""What model hubs have people choose when their licence is not in the list, or there is none."""


def is_known(licence: str | None) -> bool:
    """Whether a licence is named at all."""
    return licence is not None and licence.strip().lower() not in _SAYS_NOTHING


def forbids_commercial_use(licence: str) -> bool:
    """Whether the name of a licence says so; its text may say more."""
    return _NON_COMMERCIAL.search(licence) is not None


def remark(name: str, licence: str | None) -> str | None:
    """What people have to know before they use what a model made; None where there is nothing.

    Args:
        name: of the model.
        licence: its name, as far as it is known.
    """
    if licence is None or not is_known(licence):
        return f"the licence of model {name} is not known: see that you may use what it made"
    if forbids_commercial_use(licence):
        return f"the licence of model {name}, {licence}, forbids commercial use"
    return None

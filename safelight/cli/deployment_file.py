"""The deployments of this checkout's flows, as its file describes them."""

from pathlib import Path
from typing import Any, cast

import yaml

from safelight.errors import DependencyMissingError

CHECKOUT = Path(__file__).resolve().parents[2]
PREFECT_FILE = CHECKOUT / "deployments" / "prefect.yaml"


def described_deployments() -> dict[str, Any]:
    """What the file says, `deployments` among it.

    Raises:
        DependencyMissingError: this is no checkout.
    """
    if not PREFECT_FILE.is_file():
        raise DependencyMissingError(
            f"there is no {PREFECT_FILE}", "install Safelight from a checkout"
        )
    return cast("dict[str, Any]", yaml.safe_load(PREFECT_FILE.read_text()))

"""A replay runs flows that have deployments, and nothing else that a manifest names."""

import pytest

from safelight.cli.deployment_file import described_deployments
from safelight.cli.replaying import require_registered
from safelight.provenance.manifest import ManifestUnreadableError


def test_every_deployed_flow_can_be_replayed():
    for deployment in described_deployments()["deployments"]:
        require_registered(deployment["name"])


@pytest.mark.parametrize(
    "name", ["running", "requests", "os", "__init__", "", "markdown", "single"]
)
def test_other_modules_are_never_imported(name: str):
    with pytest.raises(ManifestUnreadableError):
        require_registered(name)

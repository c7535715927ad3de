"""What all routes share while the gateway runs."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from prefect.client.orchestration import SyncPrefectClient

from safelight.gateway.following import Following
from safelight.gateway.hooks.sending import Sender
from safelight.gateway.jobs import Flows
from safelight.gateway.metering import Runs
from safelight.gateway.steering import Submitter
from safelight.gateway.uploading import Uploads


@dataclass(frozen=True)
class Shared:
    """Made when the gateway starts."""

    client: SyncPrefectClient
    """Of the configured Prefect server."""
    flows: Flows
    """Names of flows."""
    submitter: Submitter
    """Creates jobs."""
    following: Following
    """Listens for jobs."""
    runs: Runs
    """Counts of runs, for Prometheus."""
    uploads: Uploads
    """That come in parts."""
    sender: Sender
    """Tells web hooks."""


def shared_by(client: SyncPrefectClient) -> Shared:
    """All of it, over one client."""
    flows = Flows(client)
    following, sender = Following(client), Sender(client, flows)
    following.watchers.append(sender.ended)
    following.returned.append(sender.look)
    return Shared(
        client, flows, Submitter(client, flows), following, Runs(client), Uploads(), sender
    )


def _of(request: Request) -> Shared:
    return cast("Shared", request.app.state.shared)


Everything = Annotated[Shared, Depends(_of)]
"""Annotates the parameter of a route that takes it."""

"""What is left of a run that could not leave it: its process was killed, or could not run it."""

import logging

from prefect.client.schemas.objects import FlowRun, State

from safelight.client.asking import patient_client
from safelight.client.page import PAGE_SECONDS, publish
from safelight.errors import PipelineError
from safelight.progress import StopRequestedError
from safelight.provenance.endings import failure_in, lost
from safelight.provenance.manifest import keep_manifest
from safelight.store.store import current_store

LOG = logging.getLogger(__name__)
REMEDY = "run it again: finished stages come from the store"


def leave_for(flow_run: FlowRun, ending: State[None]) -> None:
    """Write the manifest and the page of a run whose own process cannot.

    A store or server that does not answer costs them, never the state of the run; so does a worker
    that must go meanwhile.

    Args:
        flow_run: as it was read.
        ending: the final state that it is about to get.
    """
    store = current_store()
    failure = failure_in(ending.message or ending.name or "", REMEDY)
    try:
        with patient_client(PAGE_SECONDS, stops=False) as client:
            flow = client.read_flow(flow_run.flow_id).name
        manifest = lost(store, flow, str(flow_run.id), flow_run.parameters, failure)
        keep_manifest(store, manifest)
        store.settle()
        publish(manifest, flow_run.id)
    except (PipelineError, StopRequestedError) as error:
        LOG.warning("flow run %s is left without its manifest: %s", flow_run.id, error)

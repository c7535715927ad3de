"""Makes a run again and compares what comes out."""

from rich.table import Table

from safelight.cli.deployment_file import described_deployments
from safelight.cli.printing import CONSOLE, ERRORS, watching
from safelight.cli.runs import Session, session
from safelight.client.contracts import entrypoint
from safelight.errors import UnknownError
from safelight.provenance.batches import load_report
from safelight.provenance.manifest import ManifestUnreadableError
from safelight.provenance.replay import ArtifactComparison, Rerun, compare, find_run
from safelight.workflows.files import flow_names

BATCH = "batch"
"""The flow whose own stages only lay out what its requests made."""


def replay_run(source: str) -> bool:
    """Run a manifest's flow again with nothing taken from the cache, and compare sha256s.

    Of a batch, every request that succeeded is run again, then the batch for its sheets.

    Args:
        source: whatever `load_manifest` understands.

    Returns:
        Whether every result is the same, byte for byte.
    """
    rerun = find_run(source)
    require_registered(rerun.flow)
    requests = requests_of(rerun) if rerun.flow == BATCH else []
    with session() as prefect:
        return all([_replayed(prefect, one) for one in (*requests, rerun)])


def requests_of(batch: Rerun) -> list[Rerun]:
    """The runs of a batch that succeeded.

    Raises:
        ManifestUnreadableError: one is of a flow that has no deployment.
        MissingFileError: the batch left no report, or one of its runs no manifest.
    """
    report = load_report(batch.manifest.flow_run_id)
    require_registered(report.flow)
    found = [find_run(one.flow_run_id) for one in report.each() if one.state == "succeeded"]
    left = report.requests - len(found)
    if left:
        ERRORS.print(f"note: {left} requests did not succeed and are not replayed", markup=False)
    return found


def _replayed(prefect: Session, rerun: Rerun) -> bool:
    for text in rerun.notes:
        ERRORS.print(f"note: {text}", markup=False)
    with watching(f"replay {rerun.flow}") as on_progress:
        outcome = prefect.run(rerun.flow, rerun.parameters, on_progress, fresh=True)
    if outcome.manifest is None:
        raise UnknownError(
            f"the replay left no manifest: {outcome.message}", "read the flow run's log"
        )
    comparison = compare(rerun.manifest, outcome.manifest)
    for text in comparison.notes:
        if text not in rerun.notes:
            ERRORS.print(f"note: {text}", markup=False)
    table = Table(title=f"{rerun.manifest.flow_run_id} against {outcome.manifest.flow_run_id}")
    for heading in ("result", "before", "again", "same"):
        table.add_column(heading)
    for item in comparison.artifacts:
        place = f"{item.stage} {item.position + 1}"
        table.add_row(place, _short(item.before), _short(item.after), _verdict(item))
    CONSOLE.print(table)
    return comparison.identical


def require_registered(flow: str) -> None:
    """Refuse a flow that has no deployment here: a manifest is no place to take code from.

    Raises:
        ManifestUnreadableError: it has none.
        DependencyMissingError: this is no checkout.
    """
    if flow in flow_names():
        return
    known = {
        deployment["name"]: deployment["entrypoint"]
        for deployment in described_deployments()["deployments"]
    }
    if known.get(flow) != entrypoint(flow):
        raise ManifestUnreadableError(
            f"the manifest names the flow {flow[:80]!r}, expected one of "
            f"{', '.join(sorted(known))}",
            "pass a manifest that a run of this version left",
        )


def _short(sha256: str | None) -> str:
    return sha256[:16] if sha256 else "none"


def _verdict(item: ArtifactComparison) -> str:
    if item.equal:
        return "yes"
    return "no" if item.max_difference is None else f"no, off by up to {item.max_difference} levels"

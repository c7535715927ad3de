"""What a job may cost, known before it is submitted, and said yes to by a number."""

from collections.abc import Mapping

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.sorting import FlowRunSort
from pydantic import BaseModel, ConfigDict, JsonValue

from safelight.client.catalog import catalog
from safelight.client.runs import manifest_of, succeeded_runs
from safelight.engines.choosing import engines
from safelight.engines.interface import Engine
from safelight.errors import AuthMissingError, InsufficientFundsError
from safelight.gateway.workflows import flow_named
from safelight.settings import settings

LOOKED_AT = 10
"""Earlier runs of the same workflow whose costs are looked at."""
LOCAL = frozenset(
    {"generate", "transform", "inpaint", "enhance", "interpolate", "blend", "train_lora"}
)
"""Flows that ask no provider unless their parameters name one."""
NAMED = ("engines", "engine")
"""Parameters that name engines."""


class Estimate(BaseModel):
    """What a job may cost at providers. Work on own devices costs none."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    may_cost: bool
    """Whether an engine that asks for money may serve it."""
    providers: list[str]
    """Those engines."""
    usd: float | None
    """The most that one of the last runs of the workflow cost; None where none did yet."""
    run_limit_usd: float | None
    """What a run may cost at most (SAFELIGHT_BUDGET_RUN_USD); None is no limit."""

    @property
    def to_confirm(self) -> float | None:
        """The number to say yes to; None where nobody knows one."""
        return self.usd if self.usd is not None else self.run_limit_usd


class CostNotConfirmedError(InsufficientFundsError):
    """A job may cost money, and nobody said yes to it."""


def estimate(
    client: SyncPrefectClient, workflow: str, parameters: Mapping[str, JsonValue]
) -> Estimate:
    """What a job may cost.

    Raises:
        ContractMismatchError: there is no such workflow.
    """
    flow = flow_named(workflow)
    providers = _providers(flow, parameters)
    return Estimate(
        may_cost=bool(providers),
        providers=providers,
        usd=_spent_before(client, flow) if providers else None,
        run_limit_usd=settings().budget_run_usd,
    )


def require_confirmed(expected: Estimate, confirmed_usd: float | None) -> None:
    """Refuse a job that may cost money until somebody says yes to the number.

    Raises:
        CostNotConfirmedError: nobody did, or to less.
    """
    if not expected.may_cost:
        return
    wanted, by = expected.to_confirm, ", ".join(expected.providers)
    if wanted is None and confirmed_usd is None:
        raise CostNotConfirmedError(
            f"this job may be served by {by}, and nobody knows yet what it costs",
            "ask the person, then call again with confirm_cost_usd set to what they agree to",
        )
    if wanted is not None and (confirmed_usd is None or confirmed_usd < wanted):
        said = "nothing" if confirmed_usd is None else f"{confirmed_usd:.4f} USD"
        raise CostNotConfirmedError(
            f"this job may cost {wanted:.4f} USD at {by}, confirmed is {said}",
            f"ask the person, then call again with confirm_cost_usd set to {wanted:.4f} or more",
        )


def _providers(flow: str, parameters: Mapping[str, JsonValue]) -> list[str]:
    """Engines that ask for money, have a key here, and are in the order of the flow."""
    known = engines()
    order = [name for name, each in known.items() if each.engine_type == "remote"]
    if flow in catalog().preset_ids():
        order = catalog().find_preset(flow).model_dump(mode="json")["engines"]
    elif flow in LOCAL:
        order = []
    for name in NAMED:
        given = parameters.get(name)
        if given:
            order = [str(each) for each in (given if isinstance(given, list) else [given])]
    return [
        name
        for name in order
        if name in known and known[name].engine_type == "remote" and _has_key(known[name])
    ]


def _has_key(engine: Engine) -> bool:
    """Whether it may serve: one that does not answer just now may do so in a moment."""
    return not isinstance(engine.verify_identity(), AuthMissingError)


def _spent_before(client: SyncPrefectClient, flow: str) -> float | None:
    runs = succeeded_runs(client, flow, FlowRunSort.EXPECTED_START_TIME_DESC, LOOKED_AT)
    manifests = [manifest_of(run.id) for run in runs]
    costs = [each.cost_usd for each in manifests if each is not None and each.cost_usd > 0]
    return max(costs, default=None)

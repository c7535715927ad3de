"""Which changes of state the embedded server refuses besides those that Prefect does.

Prefect lets nearly any state take the place of an end. What a worker or a process says of a run
may have waited in the server behind the end that somebody gave it: nobody who asks before can know.
Runs without a deployment are left alone: their programs begin them again without scheduling them.
"""

from typing import Any, cast

from prefect.server.database import orm_models
from prefect.server.orchestration.core_policy import (
    CoreFlowPolicy,
    HandleFlowTerminalStateTransitions,
)
from prefect.server.orchestration.dependencies import ORCHESTRATION_DEPENDENCIES
from prefect.server.orchestration.policies import FlowRunOrchestrationPolicy
from prefect.server.orchestration.rules import FlowRunOrchestrationRule, OrchestrationContext
from prefect.server.schemas import core
from prefect.server.schemas.states import State, StateType

RunContext = OrchestrationContext[orm_models.FlowRun, core.FlowRunPolicy]


class KeepEnds(FlowRunOrchestrationRule):
    """A run of a deployment that is over begins again by being scheduled, or by force.

    One that Crashed may still go on, and its infrastructure may start it again as Submitting; but
    no worker takes it up. Prefect itself refuses Crashed, Cancelling and Paused after any end.
    """

    FROM_STATES = {  # noqa: RUF012  (as Prefect declares it)
        StateType.COMPLETED,
        StateType.FAILED,
        StateType.CANCELLED,
        StateType.CRASHED,
    }
    TO_STATES = {  # noqa: RUF012
        StateType.PENDING,
        StateType.RUNNING,
        StateType.COMPLETED,
        StateType.FAILED,
        StateType.CANCELLED,
    }

    async def before_transition(
        self,
        initial_state: State | None,
        proposed_state: State | None,
        context: RunContext,
    ) -> None:
        """Abort the change, which ends whatever proposed it without a state of its own."""
        if initial_state is None or proposed_state is None or context.run.deployment_id is None:
            return
        if initial_state.is_crashed() and proposed_state.name != "Pending":
            return
        await self.abort_transition(
            f"the run was ended as {initial_state.name}; schedule it again, or force the change"
        )


class Policy(CoreFlowPolicy):
    """Prefect's own rules and ours."""

    @staticmethod
    def priority() -> list[Any]:
        """Prefect's order; ours comes after those that answer repeated changes, before slots."""
        rules = cast("list[Any]", CoreFlowPolicy.priority())
        at = rules.index(HandleFlowTerminalStateTransitions) + 1
        return [*rules[:at], KeepEnds, *rules[at:]]


async def policy() -> type[FlowRunOrchestrationPolicy]:
    """What Prefect's routes ask for."""
    return Policy


def keep_ends() -> None:
    """Have the server in this process decide by `Policy`."""
    ORCHESTRATION_DEPENDENCIES["flow_policy_provider"] = policy

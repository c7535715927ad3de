"""What a batch would do, told before anything of it runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from prefect.artifacts import create_markdown_artifact
from pydantic import JsonValue

from flows.batching.durations import charges, estimate
from flows.batching.requests import Request
from safelight.client.markdown import code, table
from safelight.client.page import on_page

FIRST = 5
"""Requests that are shown."""


@dataclass(frozen=True)
class Plan:
    """Of one batch."""

    flow: str
    requests: int
    takes: str
    """How long, in words."""
    costs: str
    """In words."""
    first: Sequence[Request]
    """The first few of its requests."""

    @property
    def headings(self) -> tuple[str, ...]:
        """Of a table of the first: their place, then every parameter that one of them has."""
        return ("request", *dict.fromkeys(name for each in self.first for name in each.parameters))

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Of that table."""
        _, *names = self.headings
        return [
            (each.where, *(_shown(each.parameters.get(name)) for name in names))
            for each in self.first
        ]

    def told(self) -> dict[str, JsonValue]:
        """All of it, for programs."""
        first: list[JsonValue] = [
            {"where": each.where, "parameters": dict(each.parameters)} for each in self.first
        ]
        known: dict[str, JsonValue] = {"flow": self.flow, "requests": self.requests}
        return {**known, "takes": self.takes, "costs": self.costs, "first": first}


def plan_of(flow: str, requests: Sequence[Request]) -> Plan:
    """What running these requests would come to.

    Args:
        flow: that each of them runs.
        requests: checked.
    """
    takes, costs = estimate(flow, requests), charges()
    return Plan(flow, len(requests), takes, costs, requests[:FIRST])


def publish_plan(plan: Plan) -> None:
    """Leave it on the run's page."""
    shown = table(plan.headings, [tuple(code(cell) for cell in row) for row in plan.rows])
    page = (
        f"{plan.requests} requests of {code(plan.flow)}; nothing has run\n\n{shown}\n\n"
        f"{plan.takes}\n\n{plan.costs}"
    )
    about = "What the batch would run, and its first requests"
    on_page(lambda: create_markdown_artifact(page, key="check", description=about))


def _shown(value: JsonValue) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

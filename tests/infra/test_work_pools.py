"""The work pool templates are what the worker types themselves would use."""

import json
from pathlib import Path

import pytest
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessWorker

from safelight.pool.worker import BatchWorker, SafelightWorker

POOLS = Path(__file__).resolve().parents[2] / "deployments" / "work-pools"


@pytest.mark.parametrize(
    ("name", "worker"),
    [("gpu", SafelightWorker), ("batches", BatchWorker), ("process", ProcessWorker)],
)
def test_template_is_that_of_the_worker_type(name: str, worker: type[BaseWorker]):
    written = json.loads((POOLS / f"{name}.json").read_text())
    assert written == worker.get_default_base_job_template()


def test_a_template_asks_for_nothing_it_does_not_describe():
    for path in POOLS.glob("*.json"):
        template = json.loads(path.read_text())
        described = set(template["variables"]["properties"])
        asked = {value.strip("{} ") for value in template["job_configuration"].values()}
        assert asked <= described, path.name

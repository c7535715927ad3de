"""What is installed is looked for once: submits and lists ask for it with each job."""

import time

from safelight.client.catalog import catalog, pipelines
from safelight.gateway.workflows import WorkflowType, type_of


def test_asking_a_thousand_times_takes_no_second():
    assert type_of("photoreal_portrait_v1") is WorkflowType.PRESET
    began = time.process_time()
    for _ in range(1000):
        assert type_of("generate") is WorkflowType.GENERATE
    assert time.process_time() - began < 2, "what is installed is read anew for each"
    assert catalog() is catalog()
    assert pipelines() is pipelines()

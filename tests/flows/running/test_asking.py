"""By whom a run was asked for, as its manifest says."""

from uuid import uuid4

from prefect.client.schemas.objects import CreatedBy, FlowRun
from prefect.context import FlowRunContext

from flows.running.asking import asked, own_keys
from safelight.engines.work import paying


def test_key_schedule_and_whole_are_named():
    schedule = uuid4()
    run = FlowRun(
        flow_id=uuid4(),
        tags=["batch:x", "key:0123456789ab"],
        created_by=CreatedBy(id=schedule, type="SCHEDULE", display_value="nightly"),
    )
    nothing = {"asked_by": "", "schedule": "", "part_of": ""}
    assert asked("run") == nothing
    assert own_keys() == []
    with FlowRunContext.model_construct(flow_run=run):
        found = {"asked_by": "0123456789ab", "schedule": str(schedule)}
        assert asked(str(run.id)) == {**found, "part_of": ""}
        assert own_keys() == ["key:0123456789ab"]
        with paying(str(run.id)):
            assert asked(str(run.id)) == {**found, "part_of": ""}
            assert asked("a part") == {**found, "part_of": str(run.id)}
    by_hand = FlowRun(flow_id=uuid4(), created_by=CreatedBy(id=uuid4(), type="USER"))
    with FlowRunContext.model_construct(flow_run=by_hand):
        assert asked("run") == nothing

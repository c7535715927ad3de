"""A training on the page: loss and samples come while it learns, without a reload."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.states import Completed, Running, Scheduled

from safelight.client.markdown import code
from safelight.engines.training import Point
from safelight.gateway.page.people_rooms import read_board
from safelight.media.previews import picture_preview
from tasks.training.board import KEY, told_of
from tests.gateway.conftest import Gateway

GREY = np.full((32, 32, 3), 128, np.uint8)


def told(step: int) -> str:
    """What the board of a training leaves on its page."""
    line = told_of(Point(step, 10, 0.5 / step, 60.0), [0.5 / step])
    return "\n\n".join(
        (line, *(f"![{name}]({picture_preview(GREY)})" for name in ("loss", "samples of step 0")))
    )


def test_a_board_is_read_as_it_is_written():
    board = read_board(told(3))
    assert code(board.text) == told_of(Point(3, 10, 0.5 / 3, 60.0), [0.5 / 3])
    assert [name for name, _ in board.pictures] == ["loss", "samples of step 0"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_loss_and_samples_come_while_it_learns(page: Page, gateway: Gateway):
    client = gateway.pool.client
    later = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=9))  # no worker takes it
    deployment = client.read_deployment_by_name("train_lora/train_lora")
    run = client.create_flow_run_from_deployment(
        deployment.id, parameters={"character": "Robot"}, name="robot", state=later
    )
    client.set_flow_run_state(run.id, Running(), force=True)
    page.goto("/people")
    page.get_by_role("link", name="robot").click()
    drawer = page.locator("#drawer")
    expect(drawer).to_contain_text("Loss and samples stand here")
    made = client.create_artifact(
        ArtifactCreate(type="markdown", key=KEY, data=told(1), flow_run_id=run.id)
    )
    expect(drawer).to_contain_text("step 1 of 10, loss 0.5000, 1 min 0 s left")
    expect(drawer.locator(".samples img")).to_have_count(2)
    width = "one => one.decode().then(() => one.naturalWidth)"
    assert drawer.get_by_alt_text("loss").evaluate(width) == 32
    client.update_artifact(made.id, ArtifactUpdate(data=told(2)))
    expect(drawer).to_contain_text("step 2 of 10, loss 0.2500")
    client.set_flow_run_state(run.id, Completed(), force=True)
    expect(drawer.locator(".pill")).to_have_text("Done")
    expect(drawer.locator(".drawer[hx-trigger]")).to_have_count(0)

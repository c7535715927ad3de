"""One shard of a batch: alike pictures are drawn together, and each is what it is alone."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import torch
from PIL import Image

from flows.batching.shards import Shard, Sharded, keep_shard
from flows.shard import shard
from safelight.engines.diffusers import batch_sizes
from safelight.engines.diffusers.batch_sizes import BatchSizes
from safelight.engines.diffusers.model import model_of
from safelight.engines.diffusion import Drawing, draw
from safelight.errors import InvalidMediaError, StoreUnavailableError
from safelight.progress import clear_stop, request_stop
from safelight.provenance.manifest import MANIFESTS, Manifest, load_manifest
from safelight.remembered import Remembered
from safelight.store.store import current_store, key_of
from safelight.weights.checkpoints import find_checkpoint
from tasks.base.keeping import load_image

pytestmark = pytest.mark.usefixtures("server", "volume")
SIZE = {"width": 64, "height": 64, "steps": 2}


@pytest.fixture(autouse=True)
def _sizes_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_sizes, "_known", {})
    monkeypatch.setattr(batch_sizes, "_remembered", Remembered("batch-sizes.json"))


@pytest.fixture
def drawn_at_once() -> Iterator[list[int]]:
    """How many pictures go through the network at each step."""
    counts: list[int] = []
    network = model_of(find_checkpoint(None)).pipeline.unet
    hook = network.register_forward_pre_hook(
        lambda _, given: counts.append(given[0].shape[0] // 2)  # guided: each twice
    )
    yield counts
    hook.remove()


def run_id(number: int) -> str:
    return str(UUID(int=number))


def kept(flow: str, requests: list[dict[str, object]], retries: int = 0, **how: bool) -> str:
    each = tuple(
        Sharded(number=n, where=f"request {n + 1}", run_id=run_id(n), parameters=request)
        for n, request in enumerate(requests)
    )
    key, _ = keep_shard(Shard(flow=flow, retries=retries, requests=each, **how))
    return key


def manifests(count: int) -> list[Manifest]:
    return [load_manifest(run_id(n)) for n in range(count)]


@pytest.mark.slow
def test_alike_requests_are_drawn_together_and_are_what_they_are_alone(drawn_at_once: list[int]):
    prompts = ["a red cat", "a dog", "a flower"]
    requests = [{"prompt": prompts[n % 3], "seed": n, **SIZE} for n in range(14)]
    requests[5] = {**requests[5], "steps": 0}
    requests[9] = {**requests[9], "steps": 3}
    state = shard(requests=kept("generate", requests), return_state=True)
    assert state.is_completed(), state
    assert max(drawn_at_once) >= 2
    found = manifests(14)
    assert [manifest.success for manifest in found] == [n != 5 for n in range(14)]
    assert found[5].error is not None
    assert found[5].error.code == "INVALID_FIELD_VALUE"
    for n in (0, 4, 6, 8, 9, 13):
        (ref,) = found[n].results
        drawing = Drawing(
            card=find_checkpoint(None), prompt=prompts[n % 3], seed=n, steps=3 if n == 9 else 2
        )
        assert np.array_equal(load_image(ref), draw(drawing, 64, 64)[0])
        assert found[n].parameters["seed"] == n
        (entry,) = found[n].stages
        assert entry.status == "done"
        assert entry.results == (ref,)
    seconds = [manifest.stages[0].seconds for manifest in found if manifest.success]
    waited = [manifest.waited_seconds for manifest in found]
    assert max(waited) > 0
    assert all(each >= 0 for each in (*seconds, *waited))


@pytest.mark.parametrize("flow", [pytest.param("transform", marks=pytest.mark.slow), "inpaint"])
def test_pictures_of_one_size_are_drawn_over_together_and_are_what_they_are_alone(
    flow: str, volume: Path, drawn_at_once: list[int]
):
    chance = np.random.default_rng(5)
    files = []
    for n in range(6):
        width = 64 if n != 4 else 96
        files.append(volume / "uploads" / f"{n}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        pixels = chance.integers(0, 256, (64, width, 3), np.uint8)
        Image.fromarray(pixels).save(files[-1])
    hole = np.zeros((64, 64), np.uint8)
    hole[16:48, 16:48] = 255
    Image.fromarray(hole).save(volume / "uploads" / "mask.png")
    asked = {"prompt": "a red cat", "steps": 4, "strength": 0.6}
    if flow == "inpaint":
        files = files[:4]
        asked["mask"] = str(volume / "uploads" / "mask.png")
    requests = [{"image": str(file), "seed": n, **asked} for n, file in enumerate(files)]
    state = shard(requests=kept(flow, requests), return_state=True)
    assert state.is_completed(), state
    assert max(drawn_at_once) >= 2
    together = manifests(len(files))
    assert all(manifest.success for manifest in together), [m.error for m in together]
    drawn_at_once.clear()
    for manifest in together:  # anew, each by itself
        current_store().backend.delete(key_of(manifest.results[0]))
    for key in current_store().backend.list("cache/"):
        current_store().backend.delete(key)
    state = shard(requests=kept(flow, requests, together=False), return_state=True)
    assert state.is_completed(), state
    assert set(drawn_at_once) == {1}
    alone = manifests(len(files))
    assert [m.stages[-1].status for m in alone] == ["done"] * len(files)
    assert [m.results[0].sha256 for m in alone] == [m.results[0].sha256 for m in together]


def test_one_after_the_other_where_a_process_died(drawn_at_once: list[int]):
    requests = [{"prompt": "a red cat", "seed": n, **SIZE} for n in range(6)]
    state = shard(requests=kept("generate", requests, together=False), return_state=True)
    assert state.is_completed(), state
    assert set(drawn_at_once) == {1}
    assert all(manifest.waited_seconds == 0 for manifest in manifests(6))


@pytest.mark.slow
def test_later_stages_go_on_with_each_ones_own_picture():
    requests = [
        {
            "stages": [
                {
                    "stage_type": "generate",
                    "name": "draw",
                    "parameters": {"prompt": "a red cat", **SIZE},
                },
                {"stage_type": "upscale", "name": "enlarge", "parameters": {"upscale_factor": 2}},
            ],
            "seed": n,
        }
        for n in range(3)
    ]
    state = shard(requests=kept("pipeline", requests), return_state=True)
    assert state.is_completed(), state
    for n, manifest in enumerate(manifests(3)):
        assert manifest.success, manifest.error
        drawn, enlarged = (entry.results[0] for entry in manifest.stages)
        drawing = Drawing(card=find_checkpoint(None), prompt="a red cat", seed=n, steps=2)
        assert np.array_equal(load_image(drawn), draw(drawing, 64, 64)[0])
        assert manifest.stages[1].sources == (drawn.sha256,)
        assert (enlarged.width, enlarged.height) == (128, 128)


def test_what_may_pass_is_tried_again_by_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flows.shard.AGAIN_SECONDS", 0.0)
    monkeypatch.setattr("tasks.base.stage.DELAYS", [])
    network = model_of(find_checkpoint(None)).pipeline.unet
    left = [StoreUnavailableError("the line is down", "wait")] * 5

    def fails_at_first(*_: object) -> None:
        if left:
            raise left.pop()

    hook = network.register_forward_pre_hook(fails_at_first)
    try:
        requests = [{"prompt": "a red cat", "seed": n, **SIZE} for n in range(4)]
        key = kept("generate", requests, retries=1)
        assert shard(requests=key, return_state=True).is_completed()
    finally:
        hook.remove()
    assert [manifest.success for manifest in manifests(4)] == [True] * 4
    assert not left


def test_what_is_broken_for_all_is_told_of_each():
    network = model_of(find_checkpoint(None)).pipeline.unet

    def breaks(*_: object) -> None:
        raise InvalidMediaError("the network is broken", "mend it")

    hook = network.register_forward_pre_hook(breaks)
    try:
        requests = [{"prompt": "a red cat", "seed": n, **SIZE} for n in range(3)]
        assert shard(requests=kept("generate", requests), return_state=True).is_completed()
    finally:
        hook.remove()
    for manifest in manifests(3):
        assert manifest.error is not None
        assert manifest.error.problem == "the network is broken"


def test_one_that_is_stopped_leaves_what_it_had_made_and_nothing_of_the_rest(
    monkeypatch: pytest.MonkeyPatch,
):
    sizes = BatchSizes("two at a time", 2)
    sizes.did_not_fit(4)
    monkeypatch.setattr("safelight.engines.diffusers.together.batch_sizes", lambda *_, **__: sizes)
    network = model_of(find_checkpoint(None)).pipeline.unet
    steps: list[int] = []

    def stops(_: object, given: tuple[torch.Tensor, ...]) -> None:
        if len(given[0]) == 4:  # two pictures, guided
            steps.append(1)
        if len(steps) == 8:  # of the third pair, or the fourth where the first needed no look
            request_stop()

    hook = network.register_forward_pre_hook(stops)
    try:
        requests = [{"prompt": "a red cat", "seed": n, **SIZE} for n in range(8)]
        state = shard(requests=kept("generate", requests), return_state=True)
    finally:
        hook.remove()
        clear_stop()
    assert state.is_cancelled()
    keys = current_store().backend.list(MANIFESTS)
    told = [run_id(n) for n in range(8) if f"{MANIFESTS}{run_id(n)}.json" in keys]
    assert told in ([run_id(n) for n in range(count)] for count in (2, 4))
    assert all(load_manifest(name).success for name in told)

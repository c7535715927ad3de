"""A run on record, as the tests of manifests and replay need it."""

from collections.abc import Callable

import numpy as np
import pytest

from safelight.provenance.embed import image_bytes
from safelight.provenance.identity import EngineIdentity
from safelight.provenance.manifest import Manifest, StageEntry
from safelight.provenance.record import FileRecord
from safelight.provenance.surroundings import versions
from safelight.store.artifact import ArtifactRef
from safelight.store.store import Store, current_store

RUN = "0a1b2c3d-0000-4000-8000-00000000000{}"
WEIGHTS = "fe" * 32


@pytest.fixture
def store(volume) -> Store:
    del volume
    return current_store()


@pytest.fixture
def kept(store, photo) -> Callable[..., ArtifactRef]:
    """Stores a small picture, `lighter` levels above the photograph."""

    def keep(lighter: int = 0, stage: str = "grade", side: int = 32) -> ArtifactRef:
        pixels = np.clip(photo[:side, :side].astype(int) + lighter, 0, 255).astype(np.uint8)
        record = FileRecord(stage=stage, parameters={"lighter": lighter})
        data = image_bytes(pixels, record, "image/png")
        return store.put(data, "image/png", width=side, height=side)

    return keep


@pytest.fixture
def entry() -> Callable[..., StageEntry]:
    def make(name: str, *results: ArtifactRef, **facts) -> StageEntry:
        engine = EngineIdentity(engine_id="diffusers", version="0.42.1+1", weights=(WEIGHTS,))
        return StageEntry(
            name=name,
            stage_type=facts.pop("stage_type", name),
            status=facts.pop("status", "done"),
            parameters=facts.pop("parameters", {}),
            results=results,
            engine=engine,
            **facts,
        )

    return make


@pytest.fixture
def manifest() -> Callable[..., Manifest]:
    def make(*stages: StageEntry, run: int = 1, **facts) -> Manifest:
        return Manifest(
            **{
                "flow": "photoreal_portrait_v1",
                "flow_run_id": RUN.format(run),
                "parameters": {"prompt": "a fox", "seed": 7, "quality": "pro"},
                "stages": stages,
                "versions": versions(),
                "device_class": "cpu",
                "device_name": "test",
                "started": "2026-01-01T00:00:00+00:00",
                "ended": "2026-01-01T00:00:09+00:00",
                "success": True,
                **facts,
            }
        )

    return make

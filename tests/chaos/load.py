"""What the campaign runs: a flow of three real stages that write down each time they really ran."""

import json
import os
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from flows.running.inputs import Media, ingest_media
from flows.running.recorded import recorded_flow
from safelight.progress import step
from safelight.store.artifact import ArtifactRef
from tasks.base.stage import Stage, cache_key
from tasks.denoise import DenoiseParams, denoise
from tasks.grade import GradeParams, grade

STEPS = 6
STEP_SECONDS = 0.05
EXECUTIONS = "CHAOS_EXECUTIONS"
"""Environment variable: the file that executions are written to."""


def written_down(real: Stage[..., ArtifactRef]) -> Stage[..., ArtifactRef]:
    """The same stage, its work a little longer; each execution is a line of the file."""
    work: Callable[..., ArtifactRef] = real.fn.__wrapped__

    @wraps(work)
    def run(picture: ArtifactRef, params: Any) -> ArtifactRef:
        entry = {"key": cache_key(real, [picture, params]), "at": time.time(), "pid": os.getpid()}
        append(os.environ[EXECUTIONS], json.dumps(entry))
        for done in range(STEPS):
            step(done, STEPS)
            time.sleep(STEP_SECONDS)
        return work(picture, params)

    return Stage(run, real.params_type, real.reads, real.makes, real.declared, real.revision)


def append(path: str, line: str) -> None:
    """Add a line in one write, so that lines of several processes never mix."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line.encode() + b"\n")
    finally:
        os.close(handle)


cleaned = written_down(denoise)
graded = written_down(grade)


@recorded_flow
def develop(image: Media, number: int) -> ArtifactRef:
    """Clean and grade a picture; every number gives other pictures, so no two runs share a key."""
    picture = ingest_media("image", image, ("image",))
    clean = cleaned(picture, DenoiseParams(level=0.25 + number / 1_000_000))
    warm = graded(clean, GradeParams(colour="warm", seed=number))
    return graded(warm, GradeParams(grain=0.3, seed=number))

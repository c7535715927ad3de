"""The flow that the pool's benchmark starts: real imports, a real model, one stage.

The first stage writes when its code began, before it does anything else.
"""

import os
import time
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from prefect import flow, task


def _model(folder: str) -> StableDiffusionPipeline:
    from safelight.engines.machine.loaded import loaded

    def load() -> StableDiffusionPipeline:
        return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)

    return loaded(("benchmark", folder), load, 2**20)


@task
def draw(began: str, folder: str) -> list[int]:
    """Note the time, then draw one picture in one step."""
    Path(began).write_text(str(time.time()))
    pipeline = _model(folder)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        "a cat",
        num_inference_steps=1,
        width=64,
        height=64,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    return list(drawn.images.shape)


@flow
def measured(began: str, folder: str) -> list[int]:
    """One picture."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return draw(began, folder)

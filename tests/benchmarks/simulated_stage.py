"""A stage of a millisecond, which notes that it ran, and the flow that calls it; for `many`."""

STAGE = '''
"""Waits for a millisecond, and keeps a small picture of one colour."""

import os
import time

import numpy as np

from safelight.engines.interface import ComputeRequest
from safelight.params import Params
from safelight.store.artifact import ArtifactRef
from tasks.base.keeping import keep_image, record_of
from tasks.base.stage import stage

NOTES = "SIMULATED_NOTES"


class SimulateParams(Params):
    """Which one."""

    number: int
    """Gives the colour."""


@stage(reads={}, makes="image", origin="creates", needs=lambda *_: (ComputeRequest("1"),))
def simulate(params: SimulateParams) -> ArtifactRef:
    """Keep a picture of 8x8 pixels in a colour of its own."""
    with open(os.environ[NOTES], "a") as notes:
        notes.write(f"{params.number}\\n")
    time.sleep(0.001)
    colour = [params.number >> shift & 255 for shift in (16, 8, 0)]
    pixels = np.full((8, 8, 3), colour, np.uint8)
    return keep_image(pixels, record_of(params, []))
'''
FLOW = '''
"""A picture of one colour."""

from flows.running.recorded import recorded_flow
from safelight.store.artifact import ArtifactRef
from tasks.simulate import SimulateParams, simulate


@recorded_flow
def simulated(prompt: str, number: int) -> ArtifactRef:
    """Keep one picture."""
    return simulate(SimulateParams(number=number))
'''

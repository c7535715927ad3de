"""A stage of a run that was asked to stop does not begin."""

import io

import numpy as np
import pytest
from PIL import Image

from safelight.progress import clear_stop, request_stop
from safelight.store.store import current_store
from tasks.grade import GradeParams, grade


@pytest.mark.usefixtures("volume")
def test_a_stopped_run_begins_no_stage():
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "png")
    picture = current_store().put(file.getvalue(), "image/png")
    before = current_store().backend.list("")
    request_stop()
    try:
        outcome = grade.fn(picture, GradeParams(grain=0.5))
    finally:
        clear_stop()
    assert outcome.is_cancelled()
    assert current_store().backend.list("") == before

"""Presets with the model that comes with the checkout."""

import pytest

from tasks.base.sizing import size_for


@pytest.mark.usefixtures("volume")
def test_the_model_brings_its_size_its_guidance_and_its_enlargements():
    size = size_for(None, (2, 3))
    assert (size.width, size.height, size.enlargements) == (64, 64, (2, 4))
    assert (size.canvas_width, size.canvas_height) == (64, 96)
    assert size.guidance_scale == 2.0

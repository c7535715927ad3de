"""Presets with the model that comes with the checkout."""

import numpy as np
import pytest

from flows.photoreal_portrait_v1 import photoreal_portrait_v1
from safelight.store.artifact import ArtifactRef
from tasks.base.keeping import load_image
from tasks.base.sizing import size_for

pytestmark = pytest.mark.usefixtures("server", "volume")


def test_the_model_brings_its_size_its_guidance_and_its_enlargements():
    size = size_for(None, (2, 3))
    assert (size.width, size.height, size.enlargements) == (64, 64, (2, 4))
    assert (size.canvas_width, size.canvas_height) == (64, 96)
    assert size.guidance_scale == 2.0


@pytest.mark.slow
def test_the_first_picture_is_large_clean_and_red():
    result = photoreal_portrait_v1(prompt="a red heart", quality="low", seed=7)
    picture = load_image(ArtifactRef.model_validate(result.artifacts[-1]))
    assert picture.shape == (768, 512, 3)  # 2:3, as the preset says
    corners = np.concatenate([picture[:24, :24], picture[-24:, -24:]]).astype(int)
    assert corners.min() > 225  # white, no halo
    red, green, blue = picture[328:440, 200:312].reshape(-1, 3).mean(0)
    assert red > 180
    assert max(green, blue) < 100

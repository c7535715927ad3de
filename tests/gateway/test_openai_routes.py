"""What programs for OpenAI send: read as they mean it, or refused by its name."""

import pytest

from safelight.errors import PipelineError
from safelight.gateway.openai_routes import Wanted, as_parameters


def test_a_program_that_names_a_model_of_theirs_gets_the_default():
    sent = {"model": "gpt-image-1", "prompt": "a cat", "n": None, "size": "auto", "user": "x"}
    assert as_parameters(Wanted.model_validate(sent)) == {
        "prompt": "a cat",
        "num_images": 1,
        "width": 512,
        "height": 512,
    }


def test_a_model_of_the_folder_draws_at_the_size_that_is_asked_for():
    found = as_parameters(Wanted(prompt="a cat", model="film", size="640x384", n=3, seed=5))
    assert found["model"] == "film"
    assert (found["width"], found["height"], found["num_images"]) == (640, 384, 3)
    assert found["seed"] == 5


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"background": "transparent"}, "background is 'transparent', which nothing here does"),
        ({"output_format": "webp"}, "output_format is 'webp'"),
        ({"stream": True}, "stream is 'True'"),
        ({"quality": "high"}, "quality is 'high'"),
        ({"style": "vivid"}, "style is 'vivid'"),
        ({"size": "large"}, "size is 'large', expected WIDTHxHEIGHT"),
    ],
)
def test_what_is_not_done_is_refused_by_name(changed: dict, said: str):
    with pytest.raises(PipelineError, match=said):
        as_parameters(Wanted.model_validate({"prompt": "a cat", **changed}))

"""Pictures that become short videos."""

from typing import ClassVar

from presets.base.preset import Knobs, Preset
from tasks.animate import AnimateParams


class ImageToVideoKnobs(Knobs):
    """Every knob of the short video."""

    redraws: ClassVar[bool] = True
    animate: AnimateParams
    """The motion."""


PRESET = Preset[ImageToVideoKnobs](
    id="image_to_video_v1",
    name="Image to video",
    description="A picture as a video of two to five seconds: drawn by a video model where one is "
    "in the models folder, else with a camera that moves over the picture.",
    category="video_generation",
    required_inputs=("image",),
    optional_inputs=("prompt", "duration", "seed"),
    engines=("provider_kling", "provider_fal", "diffusers", "local_motion"),
    safety_notes=(
        "What moves in it never happened; do not pass the video off as one that was shot.",
    ),
    failure_modes={
        "INVALID_FIELD_VALUE": "Give a PNG, JPEG or WebP, and a duration of 2 to 5 seconds.",
        "FILE_NOT_FOUND": "Put the picture under VOLUME_ROOT, or name the link of an artifact.",
        "DEPENDENCY_MISSING": "Install the weights that the message names, with its command.",
        "OUT_OF_MEMORY": "Choose quality low, or a smaller picture.",
    },
    levels={
        "low": ImageToVideoKnobs(
            animate=AnimateParams(
                duration=2.0,
                steps=20,  # motion settles before detail does
            ),
        ),
        "standard": ImageToVideoKnobs(
            animate=AnimateParams(
                duration=3.0,
                steps=30,  # edges stop boiling
            ),
        ),
        "pro": ImageToVideoKnobs(
            animate=AnimateParams(
                duration=5.0,
                fps=60,  # as smooth as screens show
                steps=50,  # what the makers of video models use
            ),
        ),
    },
)

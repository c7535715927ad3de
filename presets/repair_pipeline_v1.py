"""Failed runs made again with safer settings or by another engine."""

from presets.base.preset import Knobs, Preset
from presets.base.rerun import RerunParams


class RepairKnobs(Knobs):
    """Every knob of the repair."""

    rerun: RerunParams
    """What is changed."""


PRESET = Preset[RepairKnobs](
    id="repair_pipeline_v1",
    name="Repair a failed run",
    description="A run that failed, made again with the same inputs: with safer settings, or by "
    "another engine.",
    category="hybrid_pipeline",
    required_inputs=("failed_job_id",),
    optional_inputs=("quality_override",),
    engines=("diffusers",),
    failure_modes={
        "FILE_NOT_FOUND": "Take the id of a run that the Prefect server still knows.",
        "INVALID_FIELD_VALUE": "Mend what the run says, and run it again: other settings do not.",
        "ENGINE_OFFLINE": "Start the engine that the message names, then repair again.",
        "OUT_OF_MEMORY": "Choose quality low, or a machine with more memory.",
    },
    levels={
        "low": RepairKnobs(
            rerun=RerunParams(
                quality="low",
                side=0.5,  # a quarter of the memory that grows with the picture
                tile=64,  # the least that networks work on
            ),
        ),
        "standard": RepairKnobs(
            rerun=RerunParams(
                quality="own",
                side=0.75,  # about half of the memory
                tile=128,  # a quarter of the memory of the usual 256
            ),
        ),
        "pro": RepairKnobs(
            rerun=RerunParams(
                quality="own",
                side=1.0,  # the result that was asked for, or none: another engine may have room
            ),
        ),
    },
)

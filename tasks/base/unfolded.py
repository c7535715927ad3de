"""Which of a run's prompts with choices a stage draws by."""

from safelight.params import Params
from safelight.prompts.lora_tags import lora_tags
from safelight.prompts.unfolded import Unfolded
from tasks.base.recorder import recorder

TEXTS = ("prompt", "negative_prompt")


def unfolded_in(params: Params) -> tuple[Unfolded, ...]:
    """Those whose words are in a stage's own prompts, whatever a preset has put around them.

    Templates of storyboards have words put into them again, so theirs count for every picture.
    """
    said = [value for name in TEXTS if isinstance(value := getattr(params, name, None), str)]
    return tuple(
        one
        for one in recorder().unfolded
        if said
        and (
            one.field == "prompt_template"
            or any(lora_tags(one.text)[0].strip() in text for text in said)
        )
    )

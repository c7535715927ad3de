"""What every preset is made of: a card people read, and one set of knobs per quality level."""

from typing import Generic, Literal, Self, TypeVar

from pydantic import Field, JsonValue

from safelight.errors import ContractMismatchError
from safelight.params import Params

Quality = Literal["low", "standard", "pro"]
QUALITIES: tuple[Quality, ...] = ("low", "standard", "pro")
Category = Literal[
    "image_generation",
    "video_generation",
    "character_performance",
    "post_processing",
    "hybrid_pipeline",
]
Overrides = dict[str, dict[str, JsonValue]]


class Knobs(Params):
    """The parameters of each step of a preset at one quality level; None leaves the step out."""

    def overridden(self, overrides: Overrides) -> Self:
        """These knobs with some fields replaced; all others keep their tuned values.

        Args:
            overrides: step name to field name to value, for instance
                `{"generate": {"steps": 30}}`.

        Raises:
            ContractMismatchError: no such step at this quality level, or no such field.
            InvalidFieldValueError: a value is outside its limits.
        """
        changed: dict[str, Params] = {}
        for step, fields in overrides.items():
            tuned = getattr(self, step) if step in type(self).model_fields else None
            if not isinstance(tuned, Params):
                there = ", ".join(self.steps())
                raise ContractMismatchError(
                    f"overrides name the step {step!r}; this quality level has {there}",
                    f"remove overrides.{step} or choose another quality",
                )
            changed[step] = tuned.but(**fields)
        return self.model_copy(update=changed)

    def steps(self) -> tuple[str, ...]:
        """Names of the steps that this quality level has, in order."""
        return tuple(
            name for name in type(self).model_fields if isinstance(getattr(self, name), Params)
        )


K = TypeVar("K", bound=Knobs)


class Step(Params):
    """One step of a preset and when it runs."""

    name: str
    """Field of the knobs, and key of `overrides`."""
    when: tuple[Quality, ...]
    """Quality levels at which it runs."""


class Preset(Params, Generic[K]):
    """A tuned pipeline with everything a person has to know before pressing Run."""

    id: str = Field(pattern=r"^[a-z0-9_]+_v\d+$")
    """Stable name; also the name of its flow and its deployment."""
    name: str
    """Title."""
    description: str
    """One or two sentences."""
    category: Category
    """Shelf it stands on."""
    required_inputs: tuple[str, ...]
    """Inputs that must be given."""
    optional_inputs: tuple[str, ...] = ()
    """Inputs that may be left out."""
    engines: tuple[str, ...]
    """Engines in order of preference: the next is asked where one cannot be reached or paid or is
    not installed. Local ones that are not named come last, remote ones are never asked."""
    safety_notes: tuple[str, ...] = ()
    """What to keep in mind before publishing a result."""
    consent: Literal["never", "with_reference", "always"] = "never"
    """When `consent_given` has to be true."""
    failure_modes: dict[str, str] = Field(default_factory=dict)
    """Error code to a sentence that says what to do."""
    levels: dict[Quality, K]
    """Knobs of each quality level."""

    def at(self, quality: Quality, overrides: Overrides | None = None) -> K:
        """The knobs of one quality level, with some fields replaced if wished."""
        knobs = self.levels[quality]
        return knobs.overridden(overrides) if overrides else knobs

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in order, each with the quality levels at which it runs."""
        knobs_type = type(next(iter(self.levels.values())))
        named = [
            Step(name=name, when=tuple(q for q in QUALITIES if name in self.levels[q].steps()))
            for name in knobs_type.model_fields
        ]
        return tuple(step for step in named if step.when)

"""What every preset is made of: a card people read, and one set of knobs per quality level."""

from typing import ClassVar, Generic, Literal, Self, TypeVar, get_args

from pydantic import ConfigDict, Field, JsonValue

from presets.base.gate import GateParams
from safelight.errors import ContractMismatchError, InvalidFieldValueError
from safelight.params import Params

GATE = "gate"
"""The step that looks."""
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

    redraws: ClassVar[bool] = False
    """Whether the first step draws by a seed, so that a gate can have it draw again."""
    gate: GateParams | None = None
    """What the drawing, or the result where nothing is drawn by a seed, has to show."""

    def overridden(self, overrides: Overrides) -> Self:
        """These knobs with some fields replaced; all others keep their tuned values.

        Args:
            overrides: step name to field name to value, for instance
                `{"generate": {"steps": 30}}`.

        Raises:
            ContractMismatchError: no such step at this quality level, or no such field.
            InvalidFieldValueError: a value is outside its limits, or the gate is to have drawn
                again what no seed draws.
        """
        changed: dict[str, Params] = {}
        for step, fields in overrides.items():
            tuned = getattr(self, step) if step in type(self).model_fields else None
            if step == GATE and tuned is None:
                tuned = GateParams() if self.redraws else GateParams(policy="fail")
            if not isinstance(tuned, Params):
                there = ", ".join(self.steps())
                raise ContractMismatchError(
                    f"overrides name the step {step!r}; this quality level has {there}",
                    f"remove overrides.{step} or choose another quality",
                )
            changed[step] = tuned.but(**fields)
        gate = changed.get(GATE)
        if isinstance(gate, GateParams) and gate.policy == "next_seed" and not self.redraws:
            raise InvalidFieldValueError(
                "overrides.gate.policy is next_seed, and this preset draws nothing by a seed",
                "set it to fail or warn",
            )
        return self.model_copy(update=changed)

    def steps(self) -> tuple[str, ...]:
        """Names of the steps that this quality level has, in order."""
        return tuple(name for name in self.order() if isinstance(getattr(self, name), Params))

    @classmethod
    def order(cls) -> tuple[str, ...]:
        """Names of all fields; the gate stands behind the drawing, or last."""
        names = [name for name in cls.model_fields if name != GATE]
        steps = [at for at, name in enumerate(names) if _is_step(cls.model_fields[name].annotation)]
        behind = steps[0] + 1 if cls.redraws and steps else len(names)
        return (*names[:behind], GATE, *names[behind:])


def _is_step(annotation: object) -> bool:
    kinds = get_args(annotation) or (annotation,)
    return any(isinstance(kind, type) and issubclass(kind, Params) for kind in kinds)


K = TypeVar("K", bound=Knobs)


class Step(Params):
    """One step of a preset and when it runs."""

    name: str
    """Field of the knobs, and key of `overrides`."""
    when: tuple[Quality, ...]
    """Quality levels at which it runs."""


class Preset(Params, Generic[K]):
    """A tuned pipeline with everything a person has to know before pressing Run."""

    model_config = ConfigDict(use_attribute_docstrings=False)  # no form shows a card's fields

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
            for name in knobs_type.order()
        ]
        return tuple(step for step in named if step.when)

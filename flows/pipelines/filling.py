"""Parameters of stages: defaults, then the pipeline's, the stage's own, the call's input."""

from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue, ValidationError

from flows.pipelines.described import MEDIA_INPUTS, StageSpec
from flows.pipelines.problems import Place, Tell, refuse
from flows.running.prompts import unfolded_stage
from safelight.errors import PipelineError
from safelight.params import ANY_SEED, Params, refusal, refusals
from tasks.base.recorder import recorder
from tasks.base.stage import Stage

Values = dict[str, JsonValue]


@dataclass(frozen=True)
class Filled:
    """What the stages are filled in from."""

    shared: Values
    """The pipeline's parameters."""
    call_input: Values
    """Wins over all."""
    seed: int | None
    """Of the run; for stages that draw noise and were given no other."""
    runs: bool
    """Its prompts unfold, and are entered in the run's record."""

    def params_of(
        self, at: int, spec: StageSpec, stage: Stage[..., Any], used: set[str], tell: Tell
    ) -> Params | None:
        """The parameters of one stage; None where they are not right and `tell` goes on.

        Args:
            at: its place in the pipeline.
            spec: as it is described.
            stage: what runs.
            used: keys of the pipeline's parameters and the call that a stage has; added to.
            tell: takes what is wrong, with the place where the value stands.
        """
        fields = stage.params_type.model_fields
        merged, places = self._merged(at, spec, set(fields), used)

        def told(field: Place, error: PipelineError) -> None:
            head = str(field[0]) if field else ""
            tell((*places.get(head, ("stages", at, "parameters", head)), *field[1:]), error)

        try:
            merged, prompts = unfolded_stage(spec.name, merged, self.seed if self.runs else None)
        except PipelineError as error:
            named = "negative_prompt" if "negative_prompt" in error.problem else "prompt"
            told((named,), error)
            return None
        recorder().unfolded.extend(prompts)
        try:
            return stage.params_type.model_validate(merged)
        except ValidationError as error:
            if tell is refuse:
                raise refusal(error, f"stage {spec.name}") from error
            for field, one in refusals(error, f"stage {spec.name}"):
                told(field, one)
            return None

    def _merged(
        self, at: int, spec: StageSpec, fields: set[str], used: set[str]
    ) -> tuple[Values, dict[str, Place]]:
        """Values by field, and where each stands."""
        drawn = "seed" in fields and self.seed is not None
        merged: Values = {"seed": self.seed} if drawn else {}
        places: dict[str, Place] = {}
        for name, value in self.shared.items():
            if name in fields:
                merged[name], places[name] = value, ("parameters", name)
        for name, value in spec.parameters.items():
            merged[name], places[name] = value, ("stages", at, "parameters", name)
        for key, value in self.call_input.items():
            if key in fields and key not in MEDIA_INPUTS:
                merged[key], places[key] = value, ("call_input", key)
        for key, value in self.call_input.items():  # what addresses one stage wins, in any order
            owner, _, field = key.rpartition(".")
            if owner == spec.name:
                merged[field], places[field] = value, ("call_input", key)
                used.add(key)
        used.update(name for name in fields if name in self.shared or name in self.call_input)
        if merged.get("seed") in (None, ANY_SEED) and drawn:
            merged["seed"] = self.seed
        return merged, places

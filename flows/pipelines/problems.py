"""What is wrong with a pipeline, and where: raised at once, or gathered until all is looked at."""

from collections.abc import Callable
from dataclasses import dataclass, field

from safelight.errors import PipelineError

Place = tuple[str | int, ...]
"""Names and places from the outside in."""
Tell = Callable[[Place, PipelineError], None]
"""Takes what is wrong; who goes on after it has to do without."""


@dataclass(frozen=True)
class PipelineProblem:
    """Something that is wrong with a pipeline."""

    path: Place
    """Where: names and places from the outside in."""
    code: str
    """Of the error that a run would end with."""
    problem: str
    """What was found and what was expected."""
    remedy: str
    """What to do."""


def refuse(place: Place, error: PipelineError) -> None:
    """Raise the first thing that is wrong."""
    del place
    raise error


@dataclass
class Gathered:
    """Everything that is wrong, once for each place."""

    found: list[PipelineProblem] = field(default_factory=list[PipelineProblem])
    """In the order in which it was met."""
    formless: list[Place] = field(default_factory=list[Place])
    """Places whose form is wrong: what follows from that is not told again."""

    def tell(self, place: Place, error: PipelineError) -> None:
        """Keep one problem."""
        known = {one.path for one in self.found}
        follows = any(formless[: len(place)] == place for formless in self.formless)
        if place not in known and not follows:
            self.found.append(PipelineProblem(place, error.code, error.problem, error.remedy))

    def tell_form(self, place: Place, error: PipelineError) -> None:
        """Keep one problem of form."""
        self.tell(place, error)
        self.formless.append(place)

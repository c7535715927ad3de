"""What is the same whether choices are drawn or counted: which options there are, and limits."""

from dataclasses import dataclass
from decimal import Decimal

from safelight.prompts.grammar import (
    BadTemplateError,
    Choice,
    Sequence,
    Text,
    Wildcard,
    parse,
)
from safelight.prompts.unfolded import Taken
from safelight.prompts.wildcards import Wildcards

MOST_CHOICES = 1000
"""Made in one prompt."""
LONGEST = 100_000
"""Characters of a result; what takes a prompt has its own, lower limit."""
MOST_TAKEN = 100
"""By one choice."""
DEEPEST = 16
"""Wildcards in values of wildcards."""


_MARKS = frozenset("{_\\$")
"""A text without them is nothing but words."""


@dataclass(frozen=True)
class Place:
    """The text that a node stands in."""

    where: str
    """For messages."""
    wildcards: tuple[str, ...] = ()
    """In whose values it stands, the outermost first."""
    within: str = ""
    """File and line of that value."""


@dataclass(frozen=True)
class Opened:
    """An option that may be taken."""

    weight: Decimal
    """Above 0."""
    body: Sequence | str
    """What it unfolds to; a value of a wildcard as it is written."""
    place: Place
    """Where it stands."""


@dataclass(frozen=True)
class Offer:
    """What a node may take."""

    options: tuple[Opened, ...]
    """All that have a weight."""
    low: int
    """Fewest that are taken."""
    high: int
    """Most; there are as many."""
    joiner: str
    """Between them."""


class Walk:
    """One walk through a prompt, which keeps what it has taken and stays within limits."""

    def __init__(self, wildcards: Wildcards) -> None:
        self._wildcards = wildcards
        self._bodies: dict[tuple[str, str], Sequence] = {}
        self._offers: dict[tuple[str, tuple[str, ...]], tuple[Opened, ...]] = {}
        self._length = 0
        self.taken: list[Taken] = []
        """Choices in the order they were made."""

    def offer(self, choice: Choice, place: Place) -> Offer:
        """The options of a choice; those of the wildcard, where one alone is what it chooses from.

        Raises:
            PipelineError: fewer are there than are to be taken, or a wildcard is refused.
        """
        options = tuple(
            Opened(option.weight, option.body, place) for option in choice.options if option.weight
        )
        only = options[0].body if len(options) == 1 else ()
        if len(only) == 1 and isinstance(wildcard := only[0], Wildcard):
            if all(isinstance(part, Text) for part in wildcard.name):
                name = "".join(part.text for part in wildcard.name if isinstance(part, Text))
                options = self.values(name, wildcard, place)
        high = len(options) if choice.high is None else choice.high
        if high > MOST_TAKEN:
            raise BadTemplateError(
                f"{place.where}: at character {choice.at} up to {high} are to be taken "
                f"({choice.source[:60]}), at most {MOST_TAKEN} are",
                f"ask for at most {MOST_TAKEN}",
            )
        if max(choice.low, high) > len(options):
            raise BadTemplateError(
                f"{place.where}: at character {choice.at} {max(choice.low, high)} are to be taken "
                f"of {len(options)} ({choice.source[:60]})",
                f"ask for at most {len(options)}",
            )
        return Offer(options, choice.low, high, choice.joiner)

    def values(self, name: str, wildcard: Wildcard, place: Place) -> tuple[Opened, ...]:
        """The values of a wildcard as options.

        Raises:
            PipelineError: there is none of that name, or it leads to itself.
        """
        where = f"{place.where}: at character {wildcard.at}"
        found, values = self._wildcards.values(name, where)
        chain = (*place.wildcards, found)
        if found in place.wildcards or len(chain) > DEEPEST:
            what = "leads back to itself" if found in place.wildcards else "is too deep"
            raise BadTemplateError(
                f"{where} a wildcard {what}: {' > '.join(chain)}; at most {DEEPEST} may lie in one "
                "another, none in itself",
                "break the circle in the files of the volume's wildcards",
            )
        key = (found, place.wildcards)
        if key not in self._offers:
            self._offers[key] = tuple(
                Opened(value.weight, value.text, inside)
                for value in values
                if value.weight
                for inside in (Place(value.where, chain, value.where),)
            )
        if not self._offers[key]:
            raise BadTemplateError(
                f"{where}: every value of {found} has the weight 0", "give one a weight above 0"
            )
        return self._offers[key]

    def said(self, text: Text, place: Place) -> str:
        """Plain words, which count.

        Raises:
            BadTemplateError: the result is too long.
        """
        self._length += len(text.text)
        if self._length > LONGEST:
            raise BadTemplateError(
                f"{place.where}: the prompt unfolds to more than {LONGEST} characters", "shorten it"
            )
        return text.text

    def begun(self, node: Choice | Wildcard, place: Place) -> int:
        """The place among `taken` of a choice that is being made.

        Raises:
            BadTemplateError: there are too many.
        """
        if len(self.taken) >= MOST_CHOICES:
            raise BadTemplateError(
                f"{place.where}: the prompt makes more than {MOST_CHOICES} choices",
                "use fewer of them",
            )
        self.taken.append(Taken(source=node.source, at=node.at, within=place.within, took=()))
        return len(self.taken) - 1

    def ended(self, at: int, took: tuple[str, ...]) -> None:
        """Enter what a choice has come to."""
        self.taken[at] = self.taken[at].model_copy(update={"took": took})

    def body(self, option: Opened) -> Sequence:
        """What an option consists of.

        Raises:
            BadTemplateError: a value of a wildcard is not well written.
        """
        text = option.body
        if not isinstance(text, str):
            return text
        if not _MARKS & set(text):
            return (Text(text),)
        key = (text, option.place.where)
        if key not in self._bodies:
            self._bodies[key] = parse(text, option.place.where).body
        return self._bodies[key]


def chooses(nodes: Sequence) -> bool:
    """Whether anything in there is not settled."""
    return any(not isinstance(node, Text) for node in nodes)

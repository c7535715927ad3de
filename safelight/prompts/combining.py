"""All combinations of a prompt, counted and numbered without making any but the one asked for.

The last choice changes fastest. Choices of several take them in the order they are written, fewest
first; weights do not count, but what has the weight 0 is left out.
"""

from safelight.prompts.grammar import Choice, Sequence, Text, Wildcard
from safelight.prompts.walking import Offer, Opened, Place, Walk
from safelight.prompts.wildcards import Wildcards


class Combining(Walk):
    """Counts combinations, and makes single ones."""

    def __init__(self, wildcards: Wildcards) -> None:
        super().__init__(wildcards)
        self._counts: dict[int, tuple[Sequence, int]] = {}

    def count(self, nodes: Sequence, place: Place) -> int:
        """How many there are.

        Raises:
            PipelineError: a choice or wildcard is refused.
        """
        known = self._counts.get(id(nodes))
        if known is not None:
            return known[1]
        total = 1
        for node in nodes:
            if isinstance(node, Choice):
                total *= self._of_choice(self.offer(node, place))
            elif isinstance(node, Wildcard):
                total *= sum(
                    self._of_options(self.values(name, node, place))
                    for name in self._names(node, place)
                )
        self._counts[id(nodes)] = (nodes, total)  # held, or another may get its id
        return total

    def made(self, nodes: Sequence, place: Place, number: int) -> str:
        """The combination of that number, from 0."""
        counts = [self.count((node,) if len(nodes) > 1 else nodes, place) for node in nodes]
        numbers: list[int] = []
        for count in reversed(counts):
            number, here = divmod(number, count)
            numbers.append(here)
        return "".join(
            self._one(node, place, here)
            for node, here in zip(nodes, reversed(numbers), strict=True)
        )

    def _one(self, node: Choice | Wildcard | Text, place: Place, number: int) -> str:
        if isinstance(node, Text):
            return self.said(node, place)
        at = self.begun(node, place)
        if isinstance(node, Choice):
            offer = self.offer(node, place)
            taken, joiner = self._subset(offer, number), offer.joiner
        else:
            taken, joiner = [self._of_wildcard(node, place, number)], ""
        took = tuple(self.made(self.body(one), one.place, here) for one, here in taken)
        self.ended(at, took)
        return joiner.join(took)

    def _names(self, node: Wildcard, place: Place) -> list[str]:
        names = Combining(self._wildcards)
        count = names.count(node.name, place)
        return [names.made(node.name, place, number) for number in range(count)]

    def _of_wildcard(self, node: Wildcard, place: Place, number: int) -> tuple[Opened, int]:
        for name in self._names(node, place):
            options = self.values(name, node, place)
            count = self._of_options(options)
            if number < count:
                return self._which(options, number)
            number -= count
        raise ValueError(number)

    def _which(self, options: tuple[Opened, ...], number: int) -> tuple[Opened, int]:
        for one in options:
            count = self.count(self.body(one), one.place)
            if number < count:
                return one, number
            number -= count
        raise ValueError(number)

    def _of_options(self, options: tuple[Opened, ...]) -> int:
        return sum(self.count(self.body(one), one.place) for one in options)

    def _of_choice(self, offer: Offer) -> int:
        if (offer.low, offer.high) == (1, 1):
            return self._of_options(offer.options)
        return sum(self._ways(offer)[0][offer.low : offer.high + 1])

    def _ways(self, offer: Offer) -> list[list[int]]:
        """For each option and each number of them: how many ways to take so many from there on."""
        ways = [[1, *([0] * offer.high)]]
        for one in reversed(offer.options):
            count, after = self.count(self.body(one), one.place), ways[0]
            ways.insert(
                0, [1, *(after[k] + count * after[k - 1] for k in range(1, offer.high + 1))]
            )
        return ways

    def _subset(self, offer: Offer, number: int) -> list[tuple[Opened, int]]:
        if (offer.low, offer.high) == (1, 1):
            return [self._which(offer.options, number)]
        ways = self._ways(offer)
        left = offer.low
        while number >= ways[0][left]:
            number -= ways[0][left]
            left += 1
        taken: list[tuple[Opened, int]] = []
        for at, one in enumerate(offer.options):
            if not left:
                break
            with_it = self.count(self.body(one), one.place) * ways[at + 1][left - 1]
            if number < with_it:
                here, number = divmod(number, ways[at + 1][left - 1])
                taken.append((one, here))
                left -= 1
            else:
                number -= with_it
        return taken

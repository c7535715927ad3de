"""From a prompt with choices to words: drawn by a seed, or one combination after the other.

What is drawn depends on seed, field, template and wildcards alone: SHA-256 in counter mode and
whole numbers, so that every machine and every version of Python draws the same words.
"""

import hashlib
from bisect import bisect_right
from itertools import accumulate
from math import gcd

from safelight.prompts.combining import Combining
from safelight.prompts.grammar import (
    FINEST,
    BadTemplateError,
    Choice,
    Sequence,
    Template,
    Text,
    parse,
)
from safelight.prompts.unfolded import Unfolded
from safelight.prompts.walking import Opened, Place, Walk, chooses
from safelight.prompts.wildcards import Wildcards

_REVISION = "safelight prompt 1"
"""Begins what is hashed; another one draws other words for every seed."""
_BLOCK = 8
"""Bytes of one draw."""


class Stream:
    """Whole numbers that follow from a seed."""

    def __init__(self, seed: int, name: str) -> None:
        self._key = f"{_REVISION}\n{seed}\n{name}\n".encode()
        self._count = 0

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1, each as likely as the others; draws none for 1."""
        if limit == 1:
            return 0
        fair = 2 ** (8 * _BLOCK) // limit * limit
        while True:
            self._count += 1
            digest = hashlib.sha256(self._key + str(self._count).encode()).digest()
            drawn = int.from_bytes(digest[:_BLOCK], "big")
            if drawn < fair:
                return drawn % limit


class Drawing(Walk):
    """Draws every choice as it comes."""

    def __init__(self, wildcards: Wildcards, stream: Stream) -> None:
        super().__init__(wildcards)
        self._stream = stream
        self._sums: dict[int, tuple[tuple[Opened, ...], list[int]]] = {}

    def made(self, nodes: Sequence, place: Place) -> str:
        """The words.

        Raises:
            PipelineError: a choice or wildcard is refused.
        """
        found: list[str] = []
        for node in nodes:
            if isinstance(node, Text):
                found.append(self.said(node, place))
                continue
            at = self.begun(node, place)
            if isinstance(node, Choice):
                offer = self.offer(node, place)
                more = self._stream.below(offer.high - offer.low + 1)
                drawn, joiner = self._some(offer.options, offer.low + more), offer.joiner
            else:
                name = self.made(node.name, place)
                drawn, joiner = self._some(self.values(name, node, place), 1), ""
            took = tuple(self.made(self.body(one), one.place) for one in drawn)
            self.ended(at, took)
            found.append(joiner.join(took))
        return "".join(found)

    def _some(self, options: tuple[Opened, ...], count: int) -> list[Opened]:
        """So many of them, none twice, each as likely as its weight beside those of the others."""
        if id(options) not in self._sums:
            weights = [int(one.weight * 10**FINEST) for one in options]
            whole = gcd(*weights)
            self._sums[id(options)] = options, [*accumulate(each // whole for each in weights)]
        _, sums = self._sums[id(options)]
        if count == 1:
            return [options[bisect_right(sums, self._stream.below(sums[-1]))]]
        left, found = [*options], list[Opened]()
        for _ in range(count):
            at = bisect_right(sums, self._stream.below(sums[-1]))
            weight = sums[at] - (sums[at - 1] if at else 0)
            found.append(left.pop(at))
            sums = [*sums[:at], *(each - weight for each in sums[at + 1 :])]
        return found


def unfold(field: str, prompt: str, seed: int, wildcards: Wildcards) -> Unfolded | None:
    """What a prompt unfolds to.

    Args:
        field: the parameter it was given in; prompt and negative prompt draw apart.
        prompt: as it was given.
        seed: draws, unless the prompt begins with the number of a combination.
        wildcards: files that it may name.

    Returns:
        None for a prompt that means itself.

    Raises:
        PipelineError: it is not well written, names what is not there, or has no such combination.
    """
    template = parse(prompt, field)
    if template.body in ((), (Text(prompt),)):
        return None
    place = Place(field)
    if template.combination is None:
        walk = Drawing(wildcards, Stream(seed, field))
        text = walk.made(template.body, place)
    else:
        walk = Combining(wildcards)
        text = walk.made(template.body, place, _number(template, walk, place))
    return Unfolded(
        field=field,
        template=template.text,
        combination=template.combination,
        text=text,
        choices=tuple(walk.taken),
    )


def combinations(field: str, prompt: str, wildcards: Wildcards) -> int:
    """How many combinations a prompt has: 1 where it chooses nothing.

    Raises:
        PipelineError: it is not well written, or names what is not there.
    """
    return Combining(wildcards).count(parse(prompt, field).body, Place(field))


def numbered(prompt: str, number: int) -> str:
    """The prompt that unfolds to one combination, whatever the seed.

    Args:
        prompt: as it was given.
        number: from 1.
    """
    template = parse(prompt)
    return f"{{#{number}}}{template.text}" if chooses(template.body) else prompt


def _number(template: Template, walk: Combining, place: Place) -> int:
    number, count = template.combination or 1, walk.count(template.body, place)
    if number > count:
        raise BadTemplateError(
            f"{place.where}: combination {number} is asked for, the prompt has {count}",
            f"write a number from 1 to {count}",
        )
    return number - 1

r"""The grammar of prompts that unfold, as sd-dynamic-prompts has people write them.

    prompt    = { choice | wildcard | escape | any character }
    choice    = "{" [ bounds "$$" [ joiner "$$" ] ] option { "|" option } "}"
    bounds    = NUMBER | NUMBER "-" NUMBER | NUMBER "-" | "-" NUMBER
    option    = [ weight "::" ] prompt
    wildcard  = "__" name "__"
    escape    = "\{" | "\}" | "\|" | "\__"

Braces with neither `|` nor `$$` in them, and more than one wildcard, are text; so is a backslash
before any other character, and before a bar outside of braces. A prompt of text alone means itself.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

from safelight.errors import InvalidFieldValueError, one_line

DEEPEST = 24
"""Choices within one another."""
MOST_OPTIONS = 1000
"""Of one choice."""
HEAVIEST = 1_000_000
"""Weight of an option."""
FINEST = 6
"""Digits of a weight after the point."""
JOINER = ", "
_BOUNDS = re.compile(r"\s*(?:(\d{1,6})(-)?(\d{1,6})?|-(\d{1,6}))\$\$")
_JOINER = re.compile(r"([^${}]*)\$\$")
_WEIGHT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)::")
_VARIABLE = re.compile(r"\$\{\s*[A-Za-z_][\w-]*\s*(?:[?]?=|:)")
_COMBINATION = re.compile(r"\{#(\d{1,18})\}")
_NAME = re.compile(r"[\w\-./*?+&' \\~!@]")
_GIVEN = re.compile(r"__[\w\-./*]+\([^()]*=[^()]*\)__")
_METHODS = "~!@"
_ESCAPED = ("{", "}", "__")


class BadTemplateError(InvalidFieldValueError):
    """A prompt that unfolds is not written as its grammar wants it."""


@dataclass(frozen=True)
class Text:
    """Words that stand as they are."""

    text: str
    """Escapes undone."""


@dataclass(frozen=True)
class Option:
    """One of the things that a choice may take."""

    weight: Decimal
    """How often it is taken, beside the others'."""
    body: "Sequence"
    """What it unfolds to."""


@dataclass(frozen=True)
class Choice:
    """`{a|b}`: some of several options."""

    at: int
    """Position in its text, from 1."""
    source: str
    """As it is written."""
    options: tuple[Option, ...]
    """At least one."""
    low: int = 1
    """Fewest that are taken."""
    high: int | None = 1
    """Most; None takes as many as there are."""
    joiner: str = JOINER
    """Between those that were taken."""


@dataclass(frozen=True)
class Wildcard:
    """`__name__`: a line of a file."""

    at: int
    """Position in its text, from 1."""
    source: str
    """As it is written."""
    name: "Sequence"
    """Its name, which may hold choices itself."""


Node = Text | Choice | Wildcard
Sequence = tuple[Node, ...]


@dataclass(frozen=True)
class Template:
    """A prompt that was understood."""

    text: str
    """As it was written, without the number of a combination."""
    body: Sequence
    """What it consists of."""
    combination: int | None = None
    """From 1: which of its combinations is meant, in their order; None draws one."""


def parse(prompt: str, where: str = "prompt") -> Template:
    """Understand a prompt.

    Args:
        prompt: as it was written.
        where: how an error names it.

    Raises:
        BadTemplateError: what is wrong, and at which character.
    """
    numbered = _COMBINATION.match(prompt)
    text = prompt[numbered.end() :] if numbered else prompt
    body = _Parser(text, where).parsed()
    combination = int(numbered[1]) if numbered else None
    if combination == 0:
        raise BadTemplateError(
            f"{where}: combination 0 is asked for; they are counted from 1", "write {#1} or more"
        )
    return Template(text, body, combination)


def literal(text: str) -> str:
    """A prompt that unfolds to exactly this text: the text itself, where that does."""
    try:
        same = parse(text)
    except BadTemplateError:
        same = None
    if same is not None and same.combination is None and same.body in ((), (Text(text),)):
        return text
    return text.replace("{", r"\{").replace("}", r"\}").replace("__", r"\__")


@dataclass(frozen=True)
class _Read:
    """An option, or what only looked like one."""

    weight: Decimal
    said: str
    """Its weight as it is written."""
    inside: Sequence

    @property
    def body(self) -> Sequence:
        return _stripped(self.inside)


class _Parser:
    """One pass over a text; every method goes on where the one before it stopped."""

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._next = 0
        self._in_name = False

    def parsed(self) -> Sequence:
        return self._sequence("", 0)

    def _sequence(self, ends: str, depth: int) -> Sequence:
        """Nodes up to one of some characters, which is not taken."""
        found: list[Node] = []
        while self._next < len(self._text) and self._text[self._next] not in ends:
            found += self._one(depth)
        return _joined(found)

    def _one(self, depth: int) -> Sequence:
        """What begins at the next character."""
        char = self._text[self._next]
        if char == "{":
            return self._braces(depth + 1)
        if self._text.startswith("__", self._next) and not self._in_name:
            wildcard = self._wildcard(depth)
            if wildcard is not None:
                return (wildcard,)
        if char == "$" and (variable := _VARIABLE.match(self._text, self._next)):
            raise self._wrong(
                self._next,
                f"{variable[0]!r} sets or reads a variable, and there are none here",
                "write out what it stands for, or a backslash before its brace",
            )
        escaped = self._escaped(depth) if char == "\\" else None
        self._next += 1 if escaped is None else 1 + len(escaped)
        return (Text(char if escaped is None else escaped),)

    def _escaped(self, depth: int) -> str | None:
        escapes = (*_ESCAPED, "|") if depth else _ESCAPED
        return next((each for each in escapes if self._text.startswith(each, self._next + 1)), None)

    def _braces(self, depth: int) -> Sequence:
        """A choice, or braces that are text around what they hold."""
        start = self._next
        if depth > DEEPEST:
            raise self._wrong(
                start, f"braces lie more than {DEEPEST} deep", "put some of them into a wildcard"
            )
        self._next += 1
        bounds = _BOUNDS.match(self._text, self._next)
        low, high, joiner = 1, 1, JOINER
        if bounds:
            low, high = self._bounds(bounds)
            self._next = bounds.end()
            if between := _JOINER.match(self._text, self._next):
                joiner = between[1]
                self._next = between.end()
        options = [self._option(depth)]
        while self._next < len(self._text) and self._text[self._next] == "|":
            self._next += 1
            options.append(self._option(depth))
        closed = self._next < len(self._text)
        self._next += closed
        alone = options[0].body
        if bounds is None and len(options) == 1:
            said, body = options[0].said, options[0].inside
            wildcard = len(alone) == 1 and isinstance(alone[0], Wildcard) and not said
            if not (closed and wildcard):
                return (Text("{" + said), *body, *((Text("}"),) if closed else ()))
        if not closed:
            raise self._wrong(
                start, "the brace is never closed", "close it, or write a backslash before it"
            )
        if len(options) > MOST_OPTIONS:
            raise self._wrong(
                start,
                f"{len(options)} options, at most {MOST_OPTIONS} stand in braces",
                "put them into a wildcard",
            )
        if not any(option.weight for option in options):
            raise self._wrong(start, "every option has the weight 0", "give one a weight above 0")
        source = self._text[start : self._next]
        taken = tuple(Option(each.weight, each.body) for each in options)
        return (Choice(start + 1, source, taken, low, high, joiner),)

    def _bounds(self, found: re.Match[str]) -> tuple[int, int | None]:
        low = int(found[1]) if found[1] else 1
        most = found[3] or found[4]
        high = int(most) if most else None if found[2] else low
        if high is not None and low > high:
            raise self._wrong(
                found.start(),
                f"at least {low} and at most {high} are to be taken",
                "write the smaller number first",
            )
        return low, high

    def _option(self, depth: int) -> "_Read":
        weight, said = Decimal(1), ""
        if weighed := _WEIGHT.match(self._text, self._next):
            weight, said = Decimal(weighed[1]), weighed[0]
            digits = weight.as_tuple().exponent
            if weight > HEAVIEST or (isinstance(digits, int) and -digits > FINEST):
                raise self._wrong(
                    self._next,
                    f"the weight {weighed[1][:40]} is not from 0 to {HEAVIEST} with at most "
                    f"{FINEST} digits after the point",
                    "correct the weight",
                )
            self._next = weighed.end()
        return _Read(weight, said, self._sequence("|}", depth))

    def _wildcard(self, depth: int) -> Wildcard | None:
        """A wildcard; None where two underscores are text."""
        start = self._next
        if given := _GIVEN.match(self._text, start):
            raise self._wrong(
                start,
                f"{given[0][:60]!r} hands something to a wildcard, which none takes here",
                "write out what it stands for",
            )
        self._next += 2
        self._in_name = True
        parts: list[Node] = []
        while self._next < len(self._text):
            char = self._text[self._next]
            if parts and self._text.startswith("__", self._next):
                break
            if char == "{":
                inside = self._braces(depth + 1)
                if len(inside) != 1 or not isinstance(inside[0], Choice):
                    break
                parts += inside
            elif _NAME.match(char) and (parts or char not in " _"):
                parts.append(Text(char))
                self._next += 1
            else:
                break
        self._in_name = False
        name = _joined(parts)
        ended = bool(name) and self._text.startswith("__", self._next)
        if not ended or (isinstance(last := name[-1], Text) and last.text.endswith(" ")):
            self._next = start
            return None
        self._next += 2
        source = self._text[start : self._next]
        if source[2] in _METHODS:
            raise self._wrong(
                start,
                f"{source[:60]} names a way of sampling; here all are drawn by the seed",
                f"leave out {source[2]}",
            )
        return Wildcard(start + 1, source, name)

    def _wrong(self, at: int, what: str, remedy: str) -> BadTemplateError:
        near = one_line(self._text[at : at + 24])
        return BadTemplateError(f"{self._where}: at character {at + 1} ({near}): {what}", remedy)


def _joined(nodes: list[Node]) -> Sequence:
    """The same with neighbouring texts as one."""
    found: list[Node] = []
    for node in nodes:
        if isinstance(node, Text) and found and isinstance(before := found[-1], Text):
            found[-1] = Text(before.text + node.text)
        else:
            found.append(node)
    return tuple(found)


def _stripped(nodes: Sequence) -> Sequence:
    """Without blanks at both ends."""
    found = list(nodes)
    if found and isinstance(first := found[0], Text):
        found[0] = Text(first.text.lstrip())
    if found and isinstance(last := found[-1], Text):
        found[-1] = Text(last.text.rstrip())
    return tuple(node for node in found if node != Text(""))

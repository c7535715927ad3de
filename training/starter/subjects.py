"""What the starter model can draw, and the ways people ask for it.

Everything here is data: one picture (a glyph of Noto Color Emoji) a subject, the names it goes
by, and the sentences those names are put into. Some sentences are never trained on; the
evaluation asks with those.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Subject:
    """One thing the model draws."""

    name: str
    """What it is called in reports; the first of its names."""
    glyph: str
    """The emoji whose picture in Noto Color Emoji is the only picture of this subject."""
    names: tuple[str, ...]
    """Every name it is trained under, lower case, no article; no name has two subjects."""


TABLE = Path(__file__).with_name("subjects.txt")
"""A line a subject: its glyph, then its names; lines in capitals are headings."""


def _read_table(table: str) -> tuple[Subject, ...]:
    subjects: list[Subject] = []
    for line in table.strip().splitlines():
        if line.isupper():  # a heading
            continue
        glyph, _, rest = line.partition(" ")
        names = tuple(name.strip() for name in rest.split(","))
        subjects.append(Subject(names[0], glyph, names))
    return tuple(subjects)


SUBJECTS: tuple[Subject, ...] = _read_table(TABLE.read_text(encoding="utf-8"))
"""In a fixed order: the place in this tuple is the subject's index everywhere else."""

TRAINING_SENTENCES: tuple[str, ...] = (
    "{}",
    "{}",
    "{}",
    "{a}",
    "{a}",
    "the {}",
    "one {}",
    "my {}",
    "a photo of {a}",
    "a photo of {}",
    "a photo of the {}",
    "photo of {a}",
    "a photograph of {a}",
    "a picture of {a}",
    "a picture of {}",
    "picture of {a}",
    "picture of the {}",
    "a drawing of {a}",
    "a drawing of {}",
    "drawing of the {}",
    "an image of {a}",
    "image of {}",
    "an illustration of {a}",
    "a painting of {a}",
    "a painting of the {}",
    "an icon of {a}",
    "{} icon",
    "{} emoji",
    "{} on a white background",
    "{a} on white",
    "a cute {}",
    "a small {}",
    "a big {}",
    "a nice little {}",
    "a single {}",
    "draw {a}",
    "please draw me {a}",
    "i want {a}",
    "{a}, high quality",
    "{a}, best quality, detailed",
    "a cartoon of {a}",
    "{} cartoon",
    "{a} with a white background",
    "a close up of {a}",
    "this is {a}",
    "there is {a}",
    "it is the {}",
    "{a} in the style of an emoji",
)
"""`{}` is a name, `{a}` a name with its article."""

HELD_OUT_SENTENCES: tuple[str, ...] = (
    "a lovely sketch of {a}",
    "show me {a}",
    "{a}, studio lighting",
    "a beautiful picture with {a}",
    "simple clip art of {a}",
    "could you paint {a} for me",
    "{a} in the middle of the page",
    "digital art, {}",
    "a sticker of the {}",
    "a high quality rendering of {a}",
)
"""Never trained on; half of their words are not in the training sentences either."""

FILLER_WORDS: tuple[str, ...] = tuple(
    (
        "very really just some of in on at with and the a this that here now today great fine good "
        "best pretty bright clean clear simple plain fun happy funny sharp soft modern classic "
        "style quality light color colour background view scene art work print poster sticker "
        "make create generate give us we you can to for me please want like look"
    ).split()
)
"""Words that say nothing about the subject; strewn around the name while training."""


def with_article(name: str) -> str:
    """Put "a" or "an" before a name, as its first letter asks."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def fill(sentence: str, name: str) -> str:
    """Put a name into a sentence of `TRAINING_SENTENCES` or `HELD_OUT_SENTENCES`."""
    return sentence.format(name, a=with_article(name))


def training_prompt(subject: Subject, draw: random.Random) -> str:
    """Word one request, some of them with words around it that the model must learn to ignore.

    Args:
        subject: what is asked for.
        draw: source of chance; the same state gives the same sentence.
    """
    name = subject.name if draw.random() < 0.4 else draw.choice(subject.names)
    sentence = fill(draw.choice(TRAINING_SENTENCES), name)
    if draw.random() < 0.35:
        before = " ".join(_filler(draw) for _ in range(draw.randint(0, 3)))
        after = " ".join(_filler(draw) for _ in range(draw.randint(0, 3)))
        sentence = f"{before} {sentence} {after}".strip()
    return sentence


def _filler(draw: random.Random) -> str:
    if draw.random() < 0.6:
        return draw.choice(FILLER_WORDS)
    return "".join(draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(draw.randint(2, 7)))


def held_out_prompts(count: int, seed: int = 0) -> list[tuple[int, str]]:
    """Choose requests for the evaluation: no subject twice, sentences the training never saw.

    Args:
        count: how many, at most `len(SUBJECTS)`.
        seed: of the choice.

    Returns:
        (index of the subject, prompt), in the order chosen.
    """
    draw = random.Random(seed)
    chosen = draw.sample(range(len(SUBJECTS)), count)
    return [
        (
            index,
            fill(
                HELD_OUT_SENTENCES[place % len(HELD_OUT_SENTENCES)],
                draw.choice(SUBJECTS[index].names),
            ),
        )
        for place, index in enumerate(chosen)
    ]


def vocabulary() -> list[str]:
    """List the words that become one token each: of names, training sentences and fillers."""
    words: dict[str, None] = {}
    for text in _texts():
        for word in text.replace("{a}", "an").replace("{}", "a").replace(",", " ").split():
            words[word] = None
    return list(words)


def _texts() -> Iterator[str]:
    for subject in SUBJECTS:
        yield from subject.names
    yield from TRAINING_SENTENCES
    yield from FILLER_WORDS

"""What the starter model is taught, and how requests become tokens."""

import random
from pathlib import Path

import pytest

from training.starter.metric import references
from training.starter.render import FONT, SIDE, draw_glyph, on_background, place
from training.starter.subjects import (
    HELD_OUT_SENTENCES,
    SUBJECTS,
    TRAINING_SENTENCES,
    held_out_prompts,
    training_prompt,
    vocabulary,
)
from training.starter.vocabulary import MAX_TOKENS, write_tokenizer

needs_font = pytest.mark.skipif(not FONT.exists(), reason=f"{FONT} is not installed")


def test_every_name_belongs_to_one_subject():
    names = [name for subject in SUBJECTS for name in subject.names]
    assert len(names) == len(set(names))
    assert len({subject.glyph for subject in SUBJECTS}) == len(SUBJECTS) >= 150
    assert all(name == name.lower().strip() != "" for name in names)


@needs_font
def test_the_font_draws_every_subject_differently():
    glyphs = [draw_glyph(subject.glyph) for subject in SUBJECTS]
    pictures = {place(glyph, 56).tobytes() for glyph in glyphs if glyph is not None}
    assert len(pictures) == len(SUBJECTS)


@needs_font
def test_a_shifted_glyph_moves_by_as_many_pixels():
    glyph = draw_glyph("🔴")
    assert glyph is not None
    middle, aside = (on_background(place(glyph, 40, right, 0)) for right in (0, 5))
    assert (middle[:, : SIDE - 5] == aside[:, 5:]).all()


def test_no_held_out_sentence_is_trained_on():
    assert not set(HELD_OUT_SENTENCES) & set(TRAINING_SENTENCES)
    draw = random.Random(0)
    trained = {training_prompt(draw.choice(SUBJECTS), draw) for _ in range(20_000)}
    prompts = held_out_prompts(100)
    assert len({index for index, _ in prompts}) == 100
    assert not {prompt for _, prompt in prompts} & trained
    assert prompts == held_out_prompts(100)
    assert prompts != held_out_prompts(100, seed=1)


def test_requests_repeat_with_the_state_of_chance():
    first, second = (training_prompt(SUBJECTS[0], random.Random(3)) for _ in range(2))
    assert first == second


def test_every_known_word_is_one_token(tmp_path: Path):
    tokenizer = write_tokenizer(tmp_path)
    split = {word: tokens for word in vocabulary() if len(tokens := tokenizer.tokenize(word)) != 1}
    assert split == {}


@pytest.mark.parametrize(
    "text",
    ["", "zyxwvut", "Ein Bär, größer", "猫と犬", "🚀 to the 🌙", "a\n\tcat", "x" * 500, "%&'\"<>"],
)
def test_any_text_becomes_tokens(tmp_path: Path, text: str):
    tokenizer = write_tokenizer(tmp_path)
    known = tokenizer(text, padding="max_length", max_length=MAX_TOKENS, truncation=True).input_ids
    assert len(known) == MAX_TOKENS
    assert known[0] == tokenizer.bos_token_id
    assert known[-1] == tokenizer.eos_token_id
    assert max(known) < len(tokenizer)
    unknown = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))
    assert tokenizer.unk_token_id not in unknown


def test_words_are_told_apart(tmp_path: Path):
    tokenizer = write_tokenizer(tmp_path)
    assert tokenizer("A Cat").input_ids == tokenizer("a cat").input_ids
    assert tokenizer("a cat").input_ids != tokenizer("a dog").input_ids
    assert tokenizer.decode(tokenizer("a red heart").input_ids, skip_special_tokens=True) == (
        "a red heart"
    )


@pytest.mark.slow
@needs_font
def test_references_exist_for_every_subject():
    assert set(references().subjects.tolist()) == set(range(len(SUBJECTS)))

"""Write a CLIPTokenizer in which every word the model knows is one token."""

import json
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from training.starter.subjects import vocabulary

MAX_TOKENS = 32
"""Tokens of a prompt, start and end included; what is longer is cut off."""
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_letters() -> list[str]:
    """List the printable letter that stands for each byte in byte-level BPE, in CLIP's order.

    Source:
        Radford et al. 2019, GPT-2, `bytes_to_unicode`.
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + place) for place in range(len(others))]


def split(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Cut one word into tokens, as byte-pair encoding does.

    Args:
        word: ASCII, lower case, not empty.
        ranks: merges; the lowest number is applied first.
    """
    pieces = [*word[:-1], word[-1] + "</w>"]
    while len(pieces) > 1:
        pairs = list(pairwise(pieces))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        joined: list[str] = []
        place = 0
        while place < len(pieces):
            if place + 1 < len(pieces) and (pieces[place], pieces[place + 1]) == best:
                joined.append(pieces[place] + pieces[place + 1])
                place += 2
            else:
                joined.append(pieces[place])
                place += 1
        pieces = joined
    return pieces


def merges_for(words: list[str]) -> list[tuple[str, str]]:
    """Find merges that turn each word into one token.

    A word's missing merges are added behind all others, so they change no earlier word.

    Args:
        words: ASCII, lower case.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        while len(pieces := split(word, ranks)) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
    return list(ranks)


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write vocab.json, merges.txt and the settings, and open them.

    Any text can be tokenized: unknown words fall apart into pieces, in the end into bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    merges = merges_for(vocabulary())
    letters = byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += dict.fromkeys("".join(pair) for pair in merges)
    tokens += [START, END]
    tokens = list(dict.fromkeys(tokens))
    (folder / "vocab.json").write_text(
        json.dumps({token: place for place, token in enumerate(tokens)}, ensure_ascii=False),
        encoding="utf-8",
    )
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges),
        encoding="utf-8",
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "model_max_length": MAX_TOKENS,
                "bos_token": START,
                "eos_token": END,
                "unk_token": END,
                "pad_token": END,
            },
            indent=2,
        )
        + "\n",
        encoding="utf-8",
    )
    return CLIPTokenizer.from_pretrained(str(folder))

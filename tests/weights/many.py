"""A models folder as large as any that people have: a hundred thousand files of all kinds."""

import io
import json
from pathlib import Path

import torch

from tests.weights.files import CHECKPOINT, LORA, safetensors

FOLDERS, FILES = 1000, 100
"""Folders, and models in each."""
_WORD = {"emb_params": (4, 768)}
_NET = {f"body.{at}.weight": torch.zeros(2, 2) for at in range(4)}


def _pickled() -> bytes:
    file = io.BytesIO()
    torch.save({"params_ema": _NET}, file)
    return file.getvalue()


def fill(root: Path) -> int:
    """Write them below a folder, and how many there are.

    Half have a name that models in other folders have too; in each folder five are pickles, and ten
    have facts and a picture beside them.
    """
    said = {"modelspec.title": "a title", "ss_network_dim": "4"}
    lora, checkpoint = safetensors(LORA, said), safetensors(CHECKPOINT)
    word, upscaler = safetensors(_WORD), _pickled()
    facts = json.dumps({"licence": "CC-BY-4.0", "trigger_words": ["tower", "noon"]}).encode()
    for folder in range(FOLDERS):
        here = root / f"d{folder}"
        here.mkdir(parents=True)
        for file in range(FILES):
            name = f"m{folder}-{file}" if file % 2 else f"same-{file}"
            if file % 20 == 19:
                (here / f"{name}.pth").write_bytes(upscaler)
                continue
            content = (lora, lora, checkpoint, lora, word)[file % 5]
            (here / f"{name}.safetensors").write_bytes(content)
            if file % 10 == 1:
                (here / f"{name}.json").write_bytes(facts)
                (here / f"{name}.preview.png").write_bytes(b"\x89PNG")
    return FOLDERS * FILES

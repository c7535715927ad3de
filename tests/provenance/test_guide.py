"""Runs every Python block of docs/provenance.md, in order, on a picture on record."""

import re
from pathlib import Path

from safelight.provenance.embed import image_bytes
from safelight.provenance.manifest import keep_manifest
from safelight.provenance.parameters_text import parameters_text
from safelight.provenance.record import FileRecord

GUIDE = Path(__file__).parents[2] / "docs" / "provenance.md"
DRAWN = FileRecord(
    stage="generate",
    parameters={
        "prompt": "a red fox in snow",
        "negative_prompt": "blurry",
        "loras": [{"name": "film", "weight": 0.6}],
        "steps": 40,
        "scheduler": "dpmpp_2m_karras",
        "guidance_scale": 7.5,
        "seed": 7,
        "width": 832,
        "height": 1216,
        "model": "dream",
    },
    weights=("0123456789abcdef" * 4,),
)
REFINED = FileRecord(
    stage="refine", parameters={"refinement_level": 0.35, "scale": 2}, history=(DRAWN,)
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)


def test_the_example_text_is_what_is_written():
    assert blocks("text") == [f"{parameters_text(REFINED)}\n"]


def test_every_block_runs(store, manifest, entry, photo, tmp_path, monkeypatch, capsys):
    data = image_bytes(photo[:16, :16], REFINED, "image/png")
    made = store.put(data, "image/png", width=16, height=16)
    keep_manifest(store, manifest(entry("generate", made, parameters={"seed": 7})))
    monkeypatch.chdir(tmp_path)
    Path("fox.png").write_bytes(data)
    names: dict[str, object] = {}
    assert len(blocks("python")) == 4
    for block in blocks("python"):
        exec(compile(block, str(GUIDE), "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("['generate']")
    assert printed[-1] == "True 0"

"""Every stage and every preset has a page with a picture, which an index names."""

import re
from pathlib import Path

import pytest
from PIL import Image

from presets.base.catalog import preset_ids
from tasks.base.catalog import stages
from tests.served import CHECKOUT

PAGES = [
    *((CHECKOUT / "docs" / "stages", name) for name in stages()),
    *((CHECKOUT / "docs" / "presets", name) for name in preset_ids()),
]


def test_there_are_nineteen_stages_and_twelve_presets():
    assert (len(stages()), len(preset_ids())) == (19, 12)


@pytest.mark.parametrize(("folder", "name"), PAGES, ids=[name for _, name in PAGES])
def test_it_has_a_page_with_a_picture_that_the_index_names(folder: Path, name: str):
    text = (folder / f"{name}.md").read_text()
    assert text.startswith("# ")
    assert name in text.splitlines()[0]
    shown = re.findall(r"^!\[([^]]+)\]\(([^)]+)\)", text, re.MULTILINE)
    assert shown
    for said, place in shown:
        assert said
        with Image.open(folder / place) as picture:
            assert min(picture.size) >= 100
    assert "|---|" in text, "no table of parameters"
    assert f"]({name}.md)" in (folder / "README.md").read_text()


@pytest.mark.parametrize("folder", ["stages", "presets"])
def test_the_index_is_linked_and_names_no_other(folder: str):
    assert f"](docs/{folder}/README.md)" in (CHECKOUT / "README.md").read_text()
    there = {path.stem for path in (CHECKOUT / "docs" / folder).glob("*.md")} - {"README"}
    assert there == (set(stages()) if folder == "stages" else set(preset_ids()))

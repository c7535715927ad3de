"""Folders as people collect them."""

from pathlib import Path

import pytest

from safelight.characters.gathering import captions_of, gather
from safelight.errors import PipelineError


def test_captions_stand_beside_their_pictures(tmp_path: Path):
    for name in ("b.png", "a.JPG", "c.webp", ".hidden.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a.txt").write_text("\ufeffa [trigger]\n  on grass \n", encoding="utf-8")
    (tmp_path / "c.txt").write_text("")
    (tmp_path / "d.txt").write_text("nobody's")
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "more").mkdir()
    (tmp_path / "link.png").symlink_to("/etc/passwd")
    found = gather(tmp_path)
    assert [(path.name, text) for path, text in found.pictures] == [
        ("a.JPG", "a [trigger] on grass"),
        ("b.png", None),
        ("c.webp", ""),
    ]
    assert sorted(found.left_aside) == [
        "d.txt: a text beside no picture",
        "link.png: no plain file",
        "more: no plain file",
        "notes.md: no picture",
    ]
    texts = [text for _, text in found.pictures]
    assert captions_of(texts, "zorbo", "x") == ("a zorbo on grass", "zorbo", "")
    with pytest.raises(PipelineError, match="picture 2 of 3 has no caption"):
        captions_of(texts, "", "x")


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"\xff\xfe\x00", "INVALID_FIELD_VALUE"), (b"x" * 20_001, "INVALID_FIELD_VALUE")],
)
def test_what_is_no_caption_is_refused(tmp_path: Path, content: bytes, code: str):
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(PipelineError) as refused:
        gather(tmp_path)
    assert refused.value.code == code


def test_a_folder_without_pictures_is_refused(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PipelineError) as refused:
            gather(folder)
        assert refused.value.code == "FILE_NOT_FOUND"

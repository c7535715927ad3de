"""Files of wildcards are read as they are, and never from elsewhere."""

import time
from pathlib import Path

import pytest

from safelight.errors import PipelineError
from safelight.prompts.unfolding import combinations, unfold
from safelight.prompts.wildcards import LARGEST_FILE, Wildcards, current_wildcards


def words(folder: Path, prompt: str, seed: int = 0) -> str:
    unfolded = unfold("prompt", prompt, seed, Wildcards(folder))
    assert unfolded is not None
    return unfolded.text


def test_a_link_leads_nowhere(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.txt").write_text("password\n")
    folder = tmp_path / "wildcards"
    folder.mkdir()
    (folder / "file.txt").symlink_to(secret / "key.txt")
    (folder / "folder").symlink_to(secret)
    for name in ("file", "folder/key", "key", "*", "../secret/key", "folder/../../secret/key"):
        with pytest.raises(PipelineError) as refused:
            words(folder, f"__{name}__")
        assert refused.value.code in ("FILE_NOT_FOUND", "PERMISSION_DENIED")
        assert "password" not in str(refused.value)


def test_a_file_that_becomes_a_link_is_not_followed(tmp_path: Path):
    (tmp_path / "secret.txt").write_text("password\n")
    folder = tmp_path / "wildcards"
    folder.mkdir()
    (folder / "colors.txt").write_text("red\n")
    (folder / "other.txt").write_text("one\n")
    wildcards = Wildcards(folder)
    assert wildcards.values("other", "prompt")[1][0].text == "one"  # it has looked around
    (folder / "colors.txt").unlink()
    (folder / "colors.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(PipelineError) as refused:
        wildcards.values("colors", "prompt")
    assert refused.value.code == "PERMISSION_DENIED"


def test_a_changed_file_is_read_again(tmp_path: Path):
    (tmp_path / "colors.txt").write_text("red\n")
    assert words(tmp_path, "__colors__") == "red"
    time.sleep(0.01)
    (tmp_path / "colors.txt").write_text("blue\n")
    assert words(tmp_path, "__colors__") == "blue"


def test_without_a_folder_there_is_none(volume: Path):
    assert not volume.exists()
    with pytest.raises(PipelineError, match="none at all") as refused:
        unfold("prompt", "a __colors__ cat", 0, current_wildcards())
    assert refused.value.code == "FILE_NOT_FOUND"


def test_the_nearest_name_is_told(tmp_path: Path):
    (tmp_path / "colors.txt").write_text("red\n")
    with pytest.raises(PipelineError, match="did you mean __colors__"):
        words(tmp_path, "__colours__")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"caf\xe9\n", "not UTF-8 at byte 4"),
        ("a.txt", b"1::" + b"x" * 8001, "8001 characters"),
        ("a.txt", b"9999999::x", "line 1: the weight"),
        ("a.yaml", b"a: [x\n", "a.yaml cannot be read"),
        ("a.yaml", b"a: &b [x]\nc: *b\n", "line 2: an alias"),
        ("a.yaml", b"a:\n  - [x, y]\n", "line 2: text is expected"),
        ("a.yaml", b"a:\n  - {name: x, color: y}\n", "expected text and weight"),
        ("a.yaml", b"a:\n  - {text: x, weight: much}\n", "the weight of"),
        ("a.yaml", b"? [x]\n: y\n", "a name is expected"),
        ("a.yaml", b"just words\n", "a list or names with lists"),
        ("a.yaml", b"a: " + b"{x: " * 5000, "at most 16 within one another"),
        ("a.yaml", b"- " + b"[" * 5000, "line 1: text is expected|a.yaml cannot be read"),
        ("a.json", b"{'a': 1}", "a.json cannot be read"),
        ("a.json", b"[" * 100000, "a.json cannot be read"),
        ("a.yaml", b"x: !!python/object/apply:os.system [echo]\n  \n", None),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_place(
    tmp_path: Path, name: str, content: bytes, said: str | None
):
    (tmp_path / name).write_bytes(content)
    if said is None:  # tags mean nothing: what is there is text
        assert words(tmp_path, "__x__") == "echo"
        return
    with pytest.raises(PipelineError, match=said) as refused:
        words(tmp_path, "__a__")
    assert refused.value.code == "INVALID_FIELD_VALUE"


def test_a_file_is_read_up_to_a_size(tmp_path: Path):
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(PipelineError, match=f"at most {LARGEST_FILE} are read"):
        words(tmp_path, "__a__")


def test_a_damaged_text_harms_only_who_asks_for_it(tmp_path: Path):
    (tmp_path / "licence.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "colors.txt").write_text("red\n")
    assert words(tmp_path, "__colors__") == "red"


def test_large_files_are_quick(tmp_path: Path):
    (tmp_path / "big.txt").write_text("".join(f"value {n} {{a|b}}\n" for n in range(20_000)))
    lines = "".join(f"  - value {n}\n" for n in range(20_000))
    (tmp_path / "pack.yaml").write_text(f"pack:\n{lines}")
    started = time.process_time()
    assert words(tmp_path, "__big__ __pack__").startswith("value ")
    assert combinations("prompt", "__big__", Wildcards(tmp_path)) == 40_000
    assert time.process_time() - started < 15

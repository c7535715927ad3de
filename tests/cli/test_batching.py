"""A file of requests is looked at before anything of it is kept."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from safelight.cli.batching import read_requests, show_check
from safelight.client.contracts import contract
from safelight.client.requests import LARGEST_FILE
from safelight.errors import PipelineError
from safelight.store.artifact import EXTENSIONS

GENERATE = contract("generate")
GOOD = [
    b'{"prompt": "a cat"}\n{"prompt": "a dog", "steps": 3}\n',
    b"prompt,steps\na cat,3\n",
    "\ufeffprompt\nein M\u00e4dchen\n".encode(),
    b'[{"prompt": "a cat"}]',
]


def test_a_row_with_several_seeds_is_as_many_requests(tmp_path: Path):
    file = tmp_path / "seeds.csv"
    file.write_text("prompt,seed\na cat,8..9\na dog,7\n")
    found = read_requests(file, GENERATE, {}, None)
    assert [request.parameters["seed"] for request in found.requests] == [8, 9, 7]


@pytest.mark.parametrize("content", GOOD)
def test_requests_are_given_as_they_are(tmp_path: Path, content: bytes):
    file = tmp_path / "requests"
    file.write_bytes(content)
    assert read_requests(file, GENERATE, {}, None).data == content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\nbin:x:2:2:bin:/bin:/bin/sh\n",
        b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----\n",
        b'{\n  "token": "abc"\n}\n',
        b'{"token": "abc"}\n',
        b"HOME=/root\0PATH=/bin\0",
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        b"name,password\nme,secret\n",
    ],
)
def test_what_is_no_file_of_requests_is_refused(tmp_path: Path, content: bytes):
    file = tmp_path / "private"
    file.write_bytes(content)
    with pytest.raises(PipelineError):
        read_requests(file, GENERATE, {}, None)


@pytest.mark.parametrize("kind", ["large", "pipe", "folder", "missing"])
def test_what_cannot_be_one_is_not_read(tmp_path: Path, kind: str):
    file = tmp_path / "file"
    if kind == "large":
        file.touch()
        os.truncate(file, LARGEST_FILE * 100)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    with pytest.raises(PipelineError):
        read_requests(file, GENERATE, {}, None)


def test_a_spreadsheet_is_kept_as_what_it_is():
    made = Path(__file__).parents[1] / "flows" / "batching" / "data"
    for file in (made / "products.ods", made / "products.xlsx"):
        asked = read_requests(file, GENERATE, {"width": 64}, "Products")
        assert EXTENSIONS[asked.media_type] == file.suffix
        assert [each.parameters["width"] for each in asked.requests] == [64] * 3


def test_a_value_that_the_flow_refuses_is_refused_before_anything_is_kept(tmp_path: Path):
    file = tmp_path / "requests.csv"
    file.write_text("prompt;steps\na cat;8\na dog;many\n")
    with pytest.raises(PipelineError, match="line 3: generate: field steps"):
        read_requests(file, GENERATE, {}, None)


def test_a_check_shows_what_a_file_asks_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"subject {n} --steps {n}\n" for n in range(1, 8)))
    asked = read_requests(file, GENERATE, {"seed": 3}, None)
    show_check("generate", asked, as_json=False)
    shown = capsys.readouterr().out
    assert "7 requests of generate; nothing has run" in shown
    assert "subject 5" in shown
    assert "subject 6" not in shown
    show_check("generate", asked, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["requests"] == 7
    assert told["first"][4] == {
        "where": "line 5",
        "parameters": {"prompt": "subject 5", "steps": 5, "seed": 3},
    }


@pytest.mark.usefixtures("volume")
def test_a_check_of_a_folder_names_what_was_left_aside(
    tmp_path: Path, volume: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(1, 8):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    (folder / "Thumbs.db").touch()
    enhance = contract("enhance")
    asked = read_requests(folder, enhance, {"seed": 3}, None, check=True)
    show_check("enhance", asked, as_json=False)
    shown = capsys.readouterr().out
    assert "7 requests of enhance; nothing has run" in shown
    assert "5.png" in shown
    assert "6.png" not in shown
    assert "Thumbs.db: of the operating system" in shown
    show_check("enhance", asked, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["first"][0] == {"where": "1.png", "parameters": {"image": "1.png", "seed": 3}}
    assert told["left_aside"] == ["Thumbs.db: of the operating system"]
    assert not volume.exists()
    kept = read_requests(folder, enhance, {"seed": 3}, None)
    assert len(kept.data.splitlines()) == 7
    assert len(list((volume / "uploads").rglob("*.png"))) == 7

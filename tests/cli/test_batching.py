"""A file of requests is looked at before anything of it is kept."""

import os
from pathlib import Path

import pytest

from safelight.cli.batching import LARGEST_FILE, read_requests
from safelight.client.contracts import contract
from safelight.errors import PipelineError

GENERATE = contract("generate")
GOOD = [
    b'{"prompt": "a cat"}\n{"prompt": "a dog", "steps": 3}\n',
    b"prompt,steps\na cat,3\n",
    "\ufeffprompt\nein M\u00e4dchen\n".encode(),
]


@pytest.mark.parametrize("content", GOOD)
def test_requests_are_given_as_they_are(tmp_path: Path, content: bytes):
    file = tmp_path / "requests"
    file.write_bytes(content)
    assert read_requests(file, GENERATE) == content


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
        b'[{"prompt": "a cat"}]',
        b"name,password\nme,secret\n",
    ],
)
def test_what_is_no_file_of_requests_is_refused(tmp_path: Path, content: bytes):
    file = tmp_path / "private"
    file.write_bytes(content)
    with pytest.raises(PipelineError):
        read_requests(file, GENERATE)


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
        read_requests(file, GENERATE)

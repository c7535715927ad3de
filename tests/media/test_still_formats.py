"""What is no picture is called by its kind, so that people see which file they named."""

import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from safelight.errors import InvalidMediaError
from safelight.media.images import inspect_image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def zipped() -> bytes:
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a.txt", "a")
    return made.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"# Notes of the shoot\n\nBring the tripod.\n", "text that begins with '# Notes"),
        ("ä" * 40 + "\n", "text that begins with 'ää"),
        (("x" + "ä" * 80).encode(), "text that begins with 'xä"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        (zipped(), "a ZIP archive"),
        ((EXAMPLES / "box.mp4").read_bytes(), "a video or sound (MP4"),
        (bytes(range(128, 192)), "bytes that start with"),
    ],
)
def test_a_file_that_is_no_picture_is_called_by_its_kind(data: bytes | str, said: str):
    held = data.encode() if isinstance(data, str) else data
    with pytest.raises(InvalidMediaError, match="expected a PNG, JPEG") as caught:
        inspect_image(held)
    assert f"found {said}" in caught.value.problem

"""What stands in the documents to be copied and run."""

import re
from itertools import islice
from pathlib import Path

from tests.served import CHECKOUT


def blocks(document: str | Path, language: str) -> list[str]:
    """Its code blocks in one language."""
    text = (CHECKOUT / document).read_text()
    return re.findall(rf"```{language}\n(.+?)```", text, re.DOTALL)


def commands(document: str | Path) -> list[str]:
    """The lines of its shell blocks, continued ones joined."""
    text = "\n".join(blocks(document, "sh")).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


def small_examples(folder: Path) -> None:
    """The photograph at a quarter of its size and a few frames of the clip, under their names."""
    from PIL import Image

    from safelight.media.video.stream import probe, read_frames
    from tests.media.clips import write_video

    folder.mkdir()
    photo = Image.open(CHECKOUT / "examples" / "astronaut.png")
    photo.resize((128, 128)).save(folder / "astronaut.png")
    clip = CHECKOUT / "examples" / "box.mp4"
    write_video(folder / "box.mp4", islice(read_frames(clip), 6), probe(clip).fps)

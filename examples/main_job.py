"""The main job: a photograph, a clip and a prompt through the presets, and a sheet of the results.

Offline, on whatever device is there. Run it with `make run`; a second time everything that is
finished is taken from the store. `python -m examples.main_job FOLDER` takes `astronaut.png` and
`box.mp4` from another folder.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from pydantic import JsonValue
from rich.console import Console

from safelight.cli.copies import LINKS
from safelight.cli.printing import fail, show_outcome, watching
from safelight.cli.runs import session
from safelight.errors import PipelineError
from safelight.media.images import decode_image
from safelight.media.previews import poster_strip
from safelight.media.sheets import contact_sheet
from safelight.media.video.stream import read_frames
from safelight.pixels import Pixels
from safelight.provenance.manifest import Manifest
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store

EXAMPLES = Path(__file__).resolve().parent
PHOTO, CLIP = "astronaut.png", "box.mp4"
PROMPT = "a red heart"
"""Drawn by the default model."""
COLUMNS, CELL = 3, 320


def jobs(photo: Path, clip: Path) -> tuple[tuple[str, str, dict[str, JsonValue]], ...]:
    """Title, flow and parameters of each job."""
    return (
        (
            "photo enhanced and graded",
            "pipeline",
            {
                "stages": [
                    {"stage_type": "enhance", "name": "enhance", "parameters": {}},
                    {
                        "stage_type": "grade",
                        "name": "grade",
                        "parameters": {"colour": "warm", "colour_strength": 0.6, "grain": 0.15},
                    },
                ],
                "parameters": {"quality_preset": "low"},
                "call_input": {"image": str(photo)},
                "seed": 7,
            },
        ),
        (
            "photo upscaled",
            "upscale_denoise_image_v1",
            {"image": str(photo), "quality": "low"},
        ),
        (
            "clip graded",
            "color_grade_film_grain_v1",
            {"video": str(clip), "style": "cinematic", "quality": "standard", "seed": 7},
        ),
        ("clip at 60 frames", "interpolate", {"video": str(clip), "target_fps": 60}),
        (
            f"portrait preset: {PROMPT}",
            "photoreal_portrait_v1",
            {"prompt": PROMPT, "quality": "low", "seed": 7},
        ),
    )


def main(folder: Path) -> None:
    """Run every job in one session and print where the results lie.

    Args:
        folder: of the photograph and the clip.
    """
    photo, clip = folder / PHOTO, folder / CLIP
    console = Console(emoji=False)
    made: list[tuple[str, ArtifactRef]] = []
    failed: list[str] = []
    console.print("starting (an embedded Prefect server, a few seconds)")
    with session() as prefect:
        for title, flow, parameters in jobs(photo, clip):
            with watching(title) as on_progress:
                outcome = prefect.run(flow, parameters, on_progress)
            show_outcome(outcome, LINKS)
            if outcome.succeeded and outcome.manifest is not None:
                made.append((title, _last(outcome.manifest)))
            else:
                failed.append(title)
    results = settings().volume_root.resolve() / "outputs" / "main-job"
    for place in _lay_out(made, results, photo, clip):
        console.print(str(place), markup=False, soft_wrap=True)
    if failed:
        console.print(f"failed: {', '.join(failed)}", style="red")
        sys.exit(1)


def _last(manifest: Manifest) -> ArtifactRef:
    return manifest.artifacts[-1]


def _lay_out(
    made: list[tuple[str, ArtifactRef]], folder: Path, photo: Path, clip: Path
) -> list[Path]:
    """Copies of the results under readable names, and a contact sheet of all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    store = current_store()
    places: list[Path] = []
    cells: list[tuple[str, Pixels]] = [
        ("photo as it came", decode_image(photo.read_bytes())),
        ("clip as it came", next(iter(read_frames(clip)))),
    ]
    for title, ref in made:
        target = folder / f"{title.replace(':', '').replace(' ', '-')}{ref.extension}"
        shutil.copyfile(store.fetch(ref), target)
        places.append(target)
        shown = (
            decode_image(target.read_bytes()) if ref.kind == "image" else poster_strip(target, 1)
        )
        cells.append((title, shown))
    sheet = folder / "contact-sheet.png"
    sheet.write_bytes(_png(contact_sheet(cells, COLUMNS, CELL)))
    return [*places, sheet]


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else EXAMPLES)
    except PipelineError as error:
        fail(error)

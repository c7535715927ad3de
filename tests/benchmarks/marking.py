"""What it costs to sign a picture: `python -m tests.benchmarks.marking`."""

import tempfile
import time
from pathlib import Path

import numpy as np

from safelight.marking.deciding import Source
from safelight.marking.signing import signed_picture
from safelight.provenance.embed import image_bytes
from safelight.provenance.record import FileRecord

DRAWN = FileRecord(stage="generate", parameters={"prompt": "a fox"}, engine_id="diffusers")
REFINED = FileRecord(
    stage="refine",
    parameters={"prompt": "a fox"},
    sources=("12" * 32,),
    origin="redraws",
    history=(DRAWN,),
)
SIDES = (512, 1024, 2048, 4096)
TIMES = 5


def fastest(act) -> tuple[float, bytes]:
    """Milliseconds of the fastest of some tries, and what it gave."""
    took, made = [], b""
    for _ in range(TIMES):
        began = time.perf_counter()
        made = act()
        took.append(time.perf_counter() - began)
    return min(took) * 1000, made


def main() -> None:
    """Print one line for each size."""
    noise = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.png"
        for side in SIDES:
            coarse = noise.integers(0, 240, (side // 8, side // 8, 3), dtype=np.uint8)
            pixels = coarse.repeat(8, 0).repeat(8, 1)
            pixels += noise.integers(0, 12, pixels.shape, dtype=np.uint8)
            began = time.perf_counter()
            plain = image_bytes(pixels, DRAWN, "image/png")
            encoding = (time.perf_counter() - began) * 1000
            alone, signed = fastest(
                lambda plain=plain: signed_picture(plain, "image/png", DRAWN, [])
            )
            source.write_bytes(signed)
            parts = [Source("12" * 32, "image/png", source)]
            again, chained = fastest(
                lambda plain=plain, parts=parts: signed_picture(plain, "image/png", REFINED, parts)
            )
            print(  # noqa: T201
                f"{side} px, {len(plain)} bytes: encoding {encoding:.0f} ms, "
                f"signing {alone:.1f} ms and {len(signed) - len(plain)} bytes, "
                f"with its source {again:.1f} ms and {len(chained) - len(plain)} bytes"
            )


if __name__ == "__main__":
    main()

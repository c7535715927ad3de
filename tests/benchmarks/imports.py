"""Import time of all flows over that of Prefect alone, in fresh processes, best of several."""

import json
import subprocess
import sys
import time

ROUNDS = 5
FLOWS = (
    "import flows.pipeline, flows.generate, flows.transform, flows.inpaint, flows.enhance, "
    "flows.interpolate, flows.photoreal_portrait_v1, flows.cinematic_portrait_v1, "
    "flows.upscale_denoise_image_v1, flows.color_grade_film_grain_v1"
)
PREFECT = "import prefect; prefect.flow, prefect.task"


def main() -> dict[str, float]:
    """Measure and print one JSON line."""
    plain, ours = (min(_seconds(code) for _ in range(ROUNDS)) for code in (PREFECT, FLOWS))
    measured = {
        "prefect": round(plain, 3),
        "flows": round(ours, 3),
        "ratio": round(ours / plain, 3),
    }
    print(json.dumps({"benchmark": "imports", **measured}))  # noqa: T201
    return measured


def _seconds(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

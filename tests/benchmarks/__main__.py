"""All benchmarks, one after the other; each prints a JSON line with its ratio."""

import subprocess
import sys

NAMES = (
    "imports",
    "looking",
    "png",
    "registry",
    "pipeline",
    "branches",
    "upscale",
    "interpolate",
    "shard",
    "training",
    "pool",
    "comfy",
)


def main() -> int:
    """Run each in a process of its own; 1 when one of them missed its bar."""
    codes = [
        subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=False).returncode
        for name in NAMES
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())

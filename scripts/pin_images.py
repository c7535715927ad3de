"""Names the images of others in infra/ by their digests, as their registries tell them now.

usage: python scripts/pin_images.py [docker]

Asks with `docker buildx imagetools inspect`, or with another program of the same words, and writes
`NAME:TAG@sha256:DIGEST`; the digest is that of the list of platforms, so every platform finds its
own. A later run asks again. Nothing is written unless all registries answered.
"""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

INFRA = Path(__file__).resolve().parents[1] / "infra"
NAMED = re.compile(
    r"(?m)^(?P<before>\s*(?:FROM|image:|# syntax=)\s*)"
    r"(?P<name>(?!safelight/)[a-z0-9][\w./-]*:[\w.-]+)"
    r"(?:@sha256:[0-9a-f]{64})?(?=\s*$)"
)
"""A line that names an image which is not one of ours."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def main() -> int:
    """Ask for all, then write all; 1 when a registry did not answer."""
    program = sys.argv[1] if len(sys.argv) > 1 else "docker"
    files = {path: path.read_text() for path in sorted(INFRA.rglob("*")) if named_in(path)}
    digests: dict[str, str] = {}
    for name in sorted({name for path in files for name in named_in(path)}):
        words = [program, "buildx", "imagetools", "inspect", name]
        try:
            asked = subprocess.run(
                [*words, "--format", "{{.Manifest.Digest}}"],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            print(f"{program} cannot be run: {error.strerror}", file=sys.stderr)
            return 1
        found = asked.stdout.strip()
        if asked.returncode or not DIGEST.fullmatch(found):
            said = (asked.stderr or asked.stdout).strip()
            print(f"{name}: no digest from its registry: {said}", file=sys.stderr)
            return 1
        digests[name] = found
    for path, text in files.items():
        path.write_text(pinned(text, digests))
    for name, digest in digests.items():
        print(f"{name}@{digest}")
    return 0


def named_in(path: Path) -> set[str]:
    """Images of others that a file names, without digests."""
    if not (path.name.startswith("Dockerfile.") or path.suffix == ".yaml"):
        return set()
    return {found["name"] for found in NAMED.finditer(path.read_text())}


def pinned(text: str, digests: Mapping[str, str]) -> str:
    """The text of a file with digests behind the names."""
    return NAMED.sub(
        lambda found: f"{found['before']}{found['name']}@{digests[found['name']]}", text
    )


if __name__ == "__main__":
    raise SystemExit(main())

"""Writes what the project is made of as CycloneDX 1.6 JSON, from the locks alone.

usage: python scripts/sbom.py [FILE], `build/sbom.json` when none is named
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {"run": "required", "no-deps": "required", "quantise": "optional", "dev": "excluded"}
"""Locks of what is installed, and CycloneDX's word for whether it is part of a release."""
STARTER = ROOT / "weights" / "starter" / "safelight.json"


def main() -> int:
    """Write the file; the same locks give the same bytes."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "sbom.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bill(), indent=1) + "\n")
    print(f"{target}: {len(bill()['components'])} components")
    return 0


def bill() -> dict[str, list[dict[str, object]]]:
    """The bill of materials."""
    version = re.search(r'(?m)^version = "(.+)"', (ROOT / "pyproject.toml").read_text())
    found = [*_packages(), *_weights()]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "safelight",
                "name": "safelight",
                "version": version[1] if version else "0",
            }
        },
        "components": found,
    }  # pyright: ignore[reportReturnType]


def pins(lock: str) -> list[tuple[str, str, list[str]]]:
    """Name, version and sha256s of each line of a lock."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "requirements" / f"{lock}.lock").read_text())
    blocks = re.findall(r"(?m)^([\w.-]+)==([^\s]+)((?:.*\\\n\s+--hash=.*|.*)*)", text)
    return [
        (name.lower(), version, re.findall(r"sha256:([0-9a-f]{64})", rest))
        for name, version, rest in blocks
    ]


def _packages() -> list[dict[str, object]]:
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "scope": scope,
            "purl": f"pkg:pypi/{name}@{version}",
            "hashes": [{"alg": "SHA-256", "content": sha256} for sha256 in hashes],
        }
        for lock, scope in LOCKS.items()
        for name, version, hashes in pins(lock)
    ]


def _weights() -> list[dict[str, object]]:
    files = json.loads(STARTER.read_text())["files"]
    return [
        {
            "type": "machine-learning-model",
            "bom-ref": f"weights/starter/{name}",
            "name": f"starter/{name}",
            "scope": "required",
            "hashes": [{"alg": "SHA-256", "content": facts["sha256"]}],
        }
        for name, facts in sorted(files.items())
    ]


if __name__ == "__main__":
    sys.exit(main())

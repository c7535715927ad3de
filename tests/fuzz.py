"""`python -m tests.fuzz SEED COUNT`: damaged weights, configs, records and requests.

Each try changes a good original by flips, cuts and odd values, and gives it to whoever reads it.
Right is a success or an error with a code, within 20 seconds and 1 GB more than at the start.
Anything else is printed with what brings it back. Status 1 when there was any.
"""

import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any

from safelight.errors import PipelineError
from safelight.settings import settings
from tests.damage import flipped, twisted

SECONDS, ROOM_BYTES = 20, 2**30
RUN = "01234567-89ab-cdef-0123-456789abcdef"
DIGEST = "ab" * 32


class TooSlowError(BaseException):
    """A try took too long; no reader catches it."""


def tensors() -> bytes:
    header: dict[str, Any] = {
        "cond_stage_model.a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
        "__metadata__": {"format": "pt"},
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(32)


def archive() -> bytes:
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("x/data.pkl", pickle.dumps({"a": 1, "b": [2.5, "x" * 50]}, protocol=2))
        opened.writestr("x/data/0", bytes(64))
    return made.getvalue()


class Readers:
    """Everything that reads such files, each with good originals."""

    def __init__(self, root: Path) -> None:
        self.models = root / "models"
        self.root = root
        self.all: list[tuple[str, Callable[[random.Random], bytes], Callable[[bytes], object]]] = []
        self._weights()
        self._configs()
        self._records()
        self._requests()

    def _add(
        self,
        name: str,
        original: bytes,
        read: Callable[[bytes], object],
        change: Callable[[random.Random, bytes], bytes] = twisted,
    ) -> None:
        self.all.append((name, lambda chance: change(chance, original), read))

    def _weights(self) -> None:
        from safelight.weights.add_ons import find_add_on
        from safelight.weights.checkpoints import find_checkpoint

        (self.models / "loras").mkdir(parents=True)

        def model(name: str) -> Callable[[bytes], object]:
            def read(content: bytes) -> object:
                (self.models / name).write_bytes(content)
                try:
                    return find_checkpoint(Path(name).stem)
                finally:
                    (self.models / name).unlink()

            return read

        def lora(content: bytes) -> object:
            (self.models / "loras" / "l.safetensors").write_bytes(content)
            return find_add_on("loras", "l")

        plain = pickle.dumps({"a": [1, 2.5, "x"], "b": {"c": b"y" * 99}}, protocol=2)
        self._add("safetensors", tensors(), model("a.safetensors"), flipped)
        self._add("archive", archive(), model("b.ckpt"), flipped)
        self._add("pickle", plain * 5, model("c.ckpt"), flipped)
        self._add("lora", tensors(), lora, flipped)

        def headed(chance: random.Random, content: bytes) -> bytes:
            length = struct.unpack("<Q", content[:8])[0]
            text = twisted(chance, content[8 : 8 + length])
            return struct.pack("<Q", len(text)) + text + content[8 + length :]

        self._add("header", tensors(), model("d.safetensors"), headed)

    def _configs(self) -> None:
        from safelight.weights.checkpoints import find_checkpoint
        from tasks.base.sizing import size_for

        good = {
            "model_index.json": {
                "_class_name": "StableDiffusionPipeline",
                "unet": ["diffusers", "X"],
            },
            "safelight.json": {
                "native_width": 64,
                "native_height": 64,
                "recommended_steps": 8,
                "recommended_guidance_scale": 2.5,
                "subjects": [{"name": "cat", "words": ["kitten"]}],
                "licence": "MIT",
                "base_model": "sd",
                "tags": ["small"],
                "files": {"unet/a.safetensors": {"sha256": DIGEST}},
            },
            "unet/config.json": {"sample_size": 8, "block_out_channels": [4, 8]},
            "vae/config.json": {"block_out_channels": [4, 8], "latent_channels": 4},
            "unet/a.safetensors.index.json": {"weight_map": {"a": "a.safetensors"}},
        }
        del good["safelight.json"]["files"]  # of tensors that are not those of a model

        for name, value in good.items():

            def read(content: bytes, name: str = name) -> object:
                folder = self.models / "m"
                for other, facts in good.items():
                    (folder / other).parent.mkdir(parents=True, exist_ok=True)
                    (folder / other).write_text(json.dumps(facts))
                if name == "model_index.json":  # else the facts say which family it is
                    (folder / "safelight.json").unlink()
                (folder / "unet" / "a.safetensors").write_bytes(tensors())
                (folder / name).write_bytes(content)
                try:
                    return find_checkpoint("m"), size_for("m", (3, 4))
                finally:
                    shutil.rmtree(folder)

            self._add(name, json.dumps(value).encode(), read)

    def _records(self) -> None:
        from safelight.engines.identity import EngineIdentity
        from safelight.provenance.batches import (
            BatchOutcome,
            BatchReport,
            load_report,
            report_key,
        )
        from safelight.provenance.manifest import MANIFESTS, Manifest, StageEntry, load_manifest
        from safelight.provenance.replay import find_run
        from safelight.store.inputs import find_stored
        from safelight.store.results import REFERENCE, SafelightResults, named_artifacts
        from safelight.store.store import current_store

        store = current_store()
        kept = store.put(b"words", "text/plain")
        reference = {"__class__": REFERENCE, "data": kept.model_dump(mode="json")}
        record = {"metadata": {"serializer": {"type": "json"}}, "result": json.dumps([reference])}
        entry = StageEntry(
            name="grade",
            stage_type="grade",
            status="done",
            parameters={"grain": 0.5},
            results=(kept,),
            engine=EngineIdentity(engine_id="own", version="1", weights=(DIGEST,)),
        )
        manifest = Manifest(
            flow="generate",
            flow_run_id=RUN,
            parameters={"prompt": "a cat", "steps": 3},
            inputs={"image": kept},
            stages=(entry,),
            versions={"torch": "2"},
            device_class="cpu",
            device_name="test",
            started="2026-01-01T00:00:00+00:00",
            ended="2026-01-01T00:00:09+00:00",
            success=True,
        )
        made = BatchOutcome(number=1, where="line 1", state="succeeded", results=(kept,))
        told = BatchReport(
            flow_run_id=RUN, flow="grade", batch="b", ran="here", requests=1, outcomes=(made,)
        )

        def result(content: bytes) -> object:
            store.write_record("cache/results/x", content)
            try:
                return SafelightResults().read_path("x"), list(named_artifacts(content))
            except ValueError:  # taken as "not cached"
                return None

        def run(content: bytes) -> object:
            store.write_record(f"{MANIFESTS}{RUN}.json", content)
            file = self.root / "manifest.json"
            file.write_bytes(content)
            load_manifest(file)
            return find_run(RUN)

        def report(content: bytes) -> object:
            store.write_record(report_key(RUN), content)
            return load_report(RUN)

        def link(content: bytes) -> object:
            text = content.decode(errors="replace")
            return find_stored(text, ("image", "video")), load_manifest(text)

        self._add("result", json.dumps(record).encode(), result)
        self._add("inner result", json.dumps(reference).encode(), lambda c: result(_wrapped(c)))
        self._add("manifest", manifest.model_dump_json().encode(), run)
        self._add("report", told.model_dump_json().encode(), report)
        self._add("link", kept.uri.encode(), link, flipped)

    def _requests(self) -> None:
        from flows.batch import batch
        from flows.batching.reading.files import parse
        from flows.batching.requests import check_requests, listed
        from flows.generate import generate
        from flows.pipeline import pipeline
        from safelight.cli.inputs import read_json

        lines = b'{"prompt": "a cat", "steps": 3}\n{"prompt": "a dog", "seed": 7}\n'
        table = b'prompt,steps,seed\na cat,3,1\n"a, dog",4,2\n'
        stages = {
            "stages": [
                {
                    "stage_type": "generate",
                    "name": "one",
                    "parameters": {"prompt": "x", "steps": 3},
                },
                {"stage_type": "grade", "name": "two", "parameters": {"colour": "warm"}},
            ]
        }
        shared = {"flow": "generate", "requests": [{"prompt": "a cat"}], "parallel": 2}

        def file(content: bytes) -> object:
            return check_requests(generate, parse(content), {})

        def checked(flow: Any) -> Callable[[bytes], object]:
            def read(content: bytes) -> object:
                given = read_json(content, "parameters")
                return flow.checked(given) if isinstance(given, dict) else None

            return read

        def request(content: bytes) -> object:
            given = json.loads(content) if content[:1] == b"{" else {}
            return check_requests(generate, listed([given]), {})

        self._add("request lines", lines, file, flipped)
        self._add("request table", table, file, flipped)
        self._add("request", json.dumps({"prompt": "a cat", "steps": 3}).encode(), _told(request))
        self._add("generate", b'{"prompt": "a cat", "width": 64, "seed": 1}', checked(generate))
        self._add("pipeline", json.dumps(stages).encode(), checked(pipeline))
        self._add("batch", json.dumps(shared).encode(), checked(batch))


def _wrapped(result: bytes) -> bytes:
    return json.dumps({"metadata": {}, "result": result.decode(errors="replace")}).encode()


def _told(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
    def told(content: bytes) -> object:
        try:
            json.loads(content)
        except (ValueError, RecursionError):
            return None  # the server answers it, no reader of ours sees it
        return read(content)

    return told


def main(seed: int, count: int) -> int:
    """Try; print what was not right, and how often each reader refused and took."""
    with tempfile.TemporaryDirectory(prefix="safelight-fuzz-") as folder:
        os.environ["VOLUME_ROOT"] = folder
        settings.cache_clear()
        readers = Readers(Path(folder))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_BYTES,) * 2)
        signal.signal(signal.SIGALRM, _too_slow)
        seen: Counter[str] = Counter()
        wrong = 0
        for number in range(count):
            chance = random.Random(f"{seed} {number}")
            name, change, read = readers.all[number % len(readers.all)]
            content = change(chance)
            started = time.monotonic()
            signal.alarm(SECONDS)
            try:
                read(content)
                seen[f"{name}: taken"] += 1
            except PipelineError as error:
                str(error).encode()
                seen[f"{name}: {error.code}"] += 1
                if error.code == "UNKNOWN_ERROR":
                    wrong += _shown(number, name, content, started)
            except BaseException:  # noqa: BLE001  (whatever it is, it is what we look for)
                wrong += _shown(number, name, content, started)
            finally:
                signal.alarm(0)
        print(json.dumps(dict(sorted(seen.items()))))
    return 1 if wrong else 0


def _too_slow(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise TooSlowError


def _shown(number: int, name: str, content: bytes, started: float) -> int:
    seconds = time.monotonic() - started
    trace = "".join(traceback.format_exc(limit=-4))
    print(f"WRONG {number} {name} after {seconds:.1f} s: {content[:300]!r}\n{trace[-1500:]}")
    return 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))

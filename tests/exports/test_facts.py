"""What a template finds in the records of runs."""

from pathlib import Path
from uuid import uuid4

import pytest

from flows.running.prompts import unfolded
from safelight.engines.identity import EngineIdentity
from safelight.exports.facts import batch_results, run_results, stage_results
from safelight.exports.template import parse
from safelight.provenance.batches import BatchOutcome, BatchReport
from safelight.provenance.manifest import Manifest, StageEntry, keep_manifest
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store

pytestmark = pytest.mark.usefixtures("volume")


def kept(content: bytes, **metadata: object) -> ArtifactRef:
    ref = current_store().put(content, "image/png", width=512, height=768)
    return ref.described(**metadata)  # pyright: ignore


def entry(name: str, ref: ArtifactRef, **parameters: object) -> StageEntry:
    return StageEntry(
        name=name,
        stage_type=name,
        status="done",
        parameters=parameters,  # pyright: ignore
        results=(ref,),
        engine=EngineIdentity(engine_id="compute", version="1"),
    )


def manifest_of(*entries: StageEntry, **changes: object) -> Manifest:
    facts = {
        "flow": "portrait",
        "flow_run_id": str(uuid4()),
        "parameters": {},
        "stages": entries,
        "results": entries[-1].results,
        "versions": {},
        "device_class": "cpu",
        "device_name": "a processor",
        "started": "2026-01-31T23:59:58+00:00",
        "ended": "2026-02-01T00:00:03+00:00",
        "success": True,
        **changes,
    }
    return Manifest.model_validate(facts)


DRAWN = {
    "prompt": "a red heart",
    "negative_prompt": "blurry",
    "seed": 7,
    "model": "dream-xl",
    "loras": [{"name": "ink", "weight": 0.5}, {"name": "soft", "weight": 1.0}],
    "steps": 20,
}


def filled(template: str, *results: object) -> list[str]:
    read = parse(template, "names", ["steps", "strength"])
    return ["/".join(read.fill(each.facts, each.otherwise)) for each in results]  # pyright: ignore


def test_a_run_says_prompt_seed_model_and_size_of_what_it_drew():
    drawn, larger = kept(b"drawn"), kept(b"larger")
    manifest = manifest_of(
        entry("generate", drawn, **DRAWN), entry("upscale", larger, upscale_factor=2)
    )
    template = "{preset}/{model}-{lora}-{size}-{width}-{prompt}-{seed:03}-{negative_prompt}-{steps}"
    (result,) = run_results(manifest)
    expected = "portrait/dream-xl-ink+soft-512x768-512-a red heart-007-blurry-20"
    assert filled(template, result) == [expected]
    assert filled("{date}_{time}", result) == ["2026-01-31_235958"]
    assert filled("{folder}/{name}", result) == ["a red heart-7"]
    assert filled("{id:8}", result) == [larger.sha256[:8]]
    ((stage, other),) = stage_results(manifest)
    assert (stage, other.ref) == ("generate", drawn)


def test_each_result_has_the_prompt_and_seed_of_its_own_stage():
    shots = [kept(b"1"), kept(b"2")]
    entries = [entry("generate", ref, prompt=f"shot {n}", seed=n) for n, ref in enumerate(shots, 1)]
    results = run_results(manifest_of(*entries, results=tuple(shots)))
    assert filled("{index}-{prompt}-{seed}", *results) == ["1-shot 1-1", "2-shot 2-2"]


@pytest.mark.parametrize(
    ("source", "name", "folder"),
    [
        ("photo.jpg", "photo", ""),
        ("mugs/red/photo.JPEG", "photo", "mugs/red"),
        ("clip.final.mkv", "clip.final", ""),
        ("Plate 0.5 l", "Plate 0.5 l", ""),
        ("line 3", "", ""),
        ("cell 12", "", ""),
    ],
)
def test_a_batch_names_results_by_their_source(source: str, name: str, folder: str):
    ref = kept(source.encode())
    manifest = manifest_of(entry("generate", ref, **DRAWN))
    keep_manifest(current_store(), manifest)
    outcome = BatchOutcome(
        number=3,
        where=source,
        state="succeeded",
        flow_run_id=manifest.flow_run_id,
        results=(ref,),
    )
    failed = BatchOutcome(number=4, where="line 4", state="failed")
    report = BatchReport(
        flow_run_id="run",
        flow="generate",
        batch="spring",
        ran="here",
        requests=2,
        outcomes=(outcome, failed),
    )
    results = batch_results(report)
    shown = "/".join(filter(None, (folder, name or "a red heart-7")))
    assert filled("{folder}/{name}", *results) == [shown]
    assert filled("{source}-{number:03}-{batch}", *results) == [
        f"{name}-003-spring" if name else "003-spring"
    ]


def test_a_single_run_is_named_by_the_file_it_was_given():
    ref = kept(b"x")
    manifest = manifest_of(entry("upscale", ref), parameters={"image": "uploads/cat.png"})
    assert filled("{name}", *run_results(manifest)) == ["cat"]
    assert filled("{name}", *run_results(manifest, "/home/me/dog.webp")) == ["dog"]
    stored = manifest_of(entry("upscale", ref), parameters={"image": "store:uploads/ab/x.png"})
    assert filled("{folder}/{name}", *run_results(stored)) == [ref.sha256[:16]]


def test_words_that_took_the_place_of_choices_are_fields(volume: Path):
    (volume / "wildcards").mkdir(parents=True)
    (volume / "wildcards" / "colors.txt").write_text("red\n")
    given = {"prompt": "a {2$$ and $$cat|dog} in __colors__", "seed": 5}
    drawn, prompts = unfolded(given)
    ref = kept(b"x")
    manifest = manifest_of(
        entry("generate", ref, **drawn), parameters=given, unfolded=tuple(prompts)
    )
    (prompt,) = filled("{prompt}", *run_results(manifest))
    assert prompt in ("a cat and dog in red", "a dog and cat in red")
    animals = prompt.removeprefix("a ").removesuffix(" in red").replace(" and ", " ")
    assert filled(
        "{choices}/{choices.1}, {choices.colors}, {choices.2}", *run_results(manifest)
    ) == [f"{animals}-red/{animals}, red, red"]
    assert filled("{choices.none}{seed}", *run_results(manifest)) == ["5"]


def test_each_of_several_pictures_has_its_own_seed():
    refs = [kept(content) for content in (b"1", b"22", b"333")]
    drawn = entry("generate", refs[0], seed=2**64 - 2, prompt="a heart")
    drawn = drawn.model_copy(update={"results": tuple(refs)})
    manifest = manifest_of(drawn, parameters={"seed": 2**64 - 2})
    assert filled("{seed}", *run_results(manifest)) == [str(2**64 - 2), str(2**64 - 1), "0"]


def test_a_result_whose_manifest_was_deleted_still_has_a_name(volume: Path):
    ref = kept(b"x")
    outcome = BatchOutcome(
        number=1, where="line 1", state="succeeded", flow_run_id=str(uuid4()), results=(ref,)
    )
    report = BatchReport(
        flow_run_id="r", flow="generate", batch="b", ran="here", requests=1, outcomes=(outcome,)
    )
    assert volume.exists()
    assert filled("{prompt}", *batch_results(report)) == [ref.sha256[:16]]
    assert filled("{preset}-{number}", *batch_results(report)) == ["generate-1"]

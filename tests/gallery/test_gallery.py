"""The index of the gallery: filled from manifests, found by words, forgotten without loss."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image

from safelight.errors import InvalidFieldValueError, MissingFileError
from safelight.gallery.index import Index, gallery
from safelight.gallery.searching import PAGE, beside, found, parse, place_of
from safelight.gallery.thumbnails import ON_WALL, thumbnail, thumbnail_key
from safelight.provenance.consent import ConsentRecord
from safelight.provenance.identity import EngineIdentity
from safelight.provenance.manifest import Failure, Manifest, StageEntry, keep_manifest
from safelight.store.artifact import ArtifactRef
from safelight.store.ratings import rate, ratings
from safelight.store.stars import keep, kept, let_go
from safelight.store.store import Store, current_store, key_of

ENGINE = EngineIdentity(engine_id="diffusers", version="1", weights=(), device_class="cpu")
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def picture(colour: int, side: int = 16) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), (colour % 256, colour // 256 % 256, 90)).save(out, "PNG")
    return out.getvalue()


def run(
    store: Store, number: int, *, success: bool = True, run_id: str = "", **parameters: object
) -> Manifest:
    """Keep the manifest of a run with one picture of its own."""
    ref = store.put(picture(number), "image/png", width=16, height=16)
    at = NOON + timedelta(minutes=number)
    given = {"prompt": f"number {number}", "seed": number, **parameters}
    entry = StageEntry(
        name="generate",
        stage_type="generate",
        status="done",
        parameters={"prompt": str(given["prompt"]), "seed": number},
        results=(ref,),
        engine=ENGINE,
        seconds=2.0,
    )
    manifest = Manifest(
        flow="generate",
        flow_run_id=run_id or str(uuid4()),
        parameters=given,  # pyright: ignore[reportArgumentType]
        consent=ConsentRecord(
            who="Ada", known_by="stated", when=at.isoformat(), statement="yes", references={}
        )
        if number == 3
        else None,
        stages=(entry,),
        results=(ref,) if success else (),
        versions={},
        device_class="cpu",
        device_name="cpu",
        started=at.isoformat(),
        ended=(at + timedelta(seconds=3)).isoformat(),
        success=success,
        error=None if success else Failure(code="OUT_OF_MEMORY", problem="x", remedy="y"),
    )
    keep_manifest(store, manifest)
    return manifest


def shas(index: Index, words: str) -> list[str]:
    return [each.prompt for each in found(index, parse(words), None).files]


@pytest.fixture
def index(volume: Path) -> Index:
    store = current_store()
    run(store, 1, model="dream-xl")
    run(store, 2, loras=[{"name": "robot", "weight": 1.0}], character="Robot")
    run(store, 3)
    run(store, 4, success=False)
    index = gallery()
    assert index.refresh() == 4
    return index


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ("", [4, 3, 2, 1]),
        ("NUMBER 2", [2]),
        ("model:dream", [1]),
        ("-model:dream -state:failed", [3, 2]),
        ("seed:3", [3]),
        ("lora:robot", [2]),
        ("character:robot", [2]),
        ("state:failed", [4]),
        ("by:ada", [3]),
        ("size:16x16 seed:1", [1]),
        ("size:>16", []),
        ("since:2026-11-01", [4, 3, 2, 1]),
        ("since:2027-01-01", []),
        ("since:2026-11-01T12:03:00+00:00", [4, 3]),
        ('"number 1"', [1]),
        ("100%", []),
        ("kept:no preset:generate kind:image", [4, 3, 2, 1]),
        ("rating:none", [4, 3, 2, 1]),
        ("rating:rejected", []),
    ],
)
def test_words_narrow_down(index: Index, words: str, numbers: list[int]):
    assert shas(index, words) == [f"number {number}" for number in numbers]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("modle:x", "did you mean model:"),
        ("size:huge", "expected 512x512, >1024 or <512"),
        ("since:yesteryear", "expected a day"),
        ("state:odd", "expected one of done, failed"),
        ("rating:6", "expected 1 to 5, >3, <3, none or rejected"),
        ("x" * 501, "at most 500"),
    ],
)
def test_what_is_no_search_is_refused(words: str, said: str):
    with pytest.raises(InvalidFieldValueError, match=said):
        parse(words)


def test_what_was_asked_for_counts_and_not_what_later_stages_say(volume: Path):
    store = current_store()
    manifest = run(store, 9)
    later = StageEntry(
        name="upscale",
        stage_type="upscale",
        status="done",
        parameters={"seed": 0, "model": "auto"},
        results=(store.put(picture(90), "image/png", width=16, height=16),),
        engine=ENGINE,
    )
    drew = manifest.stages[0].model_copy(
        update={"parameters": {**manifest.stages[0].parameters, "model": "dream-xl"}}
    )
    keep_manifest(
        store,
        manifest.model_copy(update={"stages": (drew, later), "results": later.results}),
    )
    index = gallery()
    index.refresh()
    (filed,) = index.select("result = 1", (), 2)
    assert (filed.stage, filed.seed, filed.model, filed.prompt) == (
        *("upscale", "9", "dream-xl", "number 9"),
    )


def test_the_index_is_made_again_from_the_store(index: Index):
    store = current_store()
    keep(store, index.select("seed = '2'", (), 1)[0].sha256)
    before = [(each.sha256, each.run, each.at) for each in index.select("1", (), 10)]
    index.database.file.unlink()
    assert index.is_empty()
    assert index.rebuild() == 4
    assert [(each.sha256, each.run, each.at) for each in index.select("1", (), 10)] == before
    assert shas(index, "kept:yes") == ["number 2"]
    assert index.ran([before[0][1]])[before[0][1]].code == "OUT_OF_MEMORY"


def test_a_run_that_was_tried_again_is_read_anew(index: Index, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("safelight.gallery.index.FRESH_SECONDS", 0.0)
    (failed,) = index.select("state = 'failed'", (), 2)
    run(current_store(), 5, run_id=failed.run)
    assert index.refresh() == 1
    assert shas(index, "state:failed") == []
    assert shas(index, f"run:{failed.run}") == ["number 5"]


def test_what_was_deleted_does_not_come_back(index: Index):
    gone = index.select("seed = '1'", (), 1)[0]
    current_store().backend.delete(key_of(gone.ref))
    index.forget(gone.sha256)
    with pytest.raises(MissingFileError, match="or it was deleted"):
        index.find(gone.sha256)
    index.rebuild()
    assert shas(index, "seed:1") == []


def test_an_unreadable_manifest_costs_itself_alone(index: Index):
    store = current_store()
    store.write_record(f"outputs/manifests/{uuid4()}.json", b"{}")
    assert index.rebuild() == 5
    assert len(shas(index, "")) == 4
    assert index.rebuild() == 5


def test_pages_follow_one_another_without_a_gap(volume: Path):
    store = current_store()
    for number in range(PAGE + 20):
        run(store, number)
    index = gallery()
    index.refresh()
    first = found(index, parse(""), None)
    assert first.next is not None
    second = found(index, parse(""), first.next)
    assert (len(first.files), len(second.files), second.next) == (PAGE, 20, None)
    prompts = [each.prompt for each in (*first.files, *second.files)]
    assert prompts == [f"number {number}" for number in reversed(range(PAGE + 20))]


def test_stars_stand_in_the_store(volume: Path):
    store = current_store()
    sha256 = "ab" * 32
    keep(store, sha256)
    assert kept(store) == {sha256}
    let_go(store, sha256)
    assert kept(store) == frozenset()
    with pytest.raises(InvalidFieldValueError, match="is no sha256"):
        keep(store, "../x")


def test_ratings_stand_in_the_store_and_are_found_by_words(index: Index):
    store = current_store()
    one, two, three = (index.select("seed = ?", (str(n),), 1)[0].sha256 for n in (1, 2, 3))
    for sha256, value in ((one, 3), (one, 5), (two, -1), (three, 2), (three, 0)):
        rate(store, sha256, value)
        index.rate(sha256, value)
    assert ratings(store) == {one: 5, two: -1}
    assert shas(index, "rating:>3") == ["number 1"]
    assert shas(index, "rating:<5") == []
    assert shas(index, "rating:rejected") == ["number 2"]
    assert shas(index, "-rating:rejected rating:none") == ["number 4", "number 3"]
    index.rebuild()
    assert [each.rating for each in index.select("1", (), 4)] == [0, 0, -1, 5]
    for sha256, value in (("../x", 1), (one, 6)):
        with pytest.raises(InvalidFieldValueError):
            rate(store, sha256, value)


def test_variations_of_a_prompt_are_one_stack(volume: Path):
    store = current_store()
    for number in range(4):
        run(store, number, prompt="a dragon")
    run(store, 5, prompt="a dragon", model="dream-xl")
    run(store, 7, prompt="a ship")
    index = gallery()
    index.refresh()
    search = parse("")
    page = found(index, search, None, stacked=True)
    assert [each.seed for each in page.files] == ["7", "5", "3"]
    assert page.many == {page.files[2].sha256: 4}
    opened = found(index, parse(f"stack:{page.files[2].stack}"), None)
    assert [each.seed for each in opened.files] == ["3", "2", "1", "0"]
    narrowed = found(index, parse("seed:1"), None, stacked=True)
    assert [each.seed for each in narrowed.files] == ["1"]
    second = opened.files[1]
    before, after = beside(index, search, second)
    assert before is not None
    assert after is not None
    assert (before.seed, after.seed, place_of(index, search, second)) == ("3", "1", 4)
    assert beside(index, search, page.files[0])[0] is None


def test_stacks_follow_one_another_without_a_gap(volume: Path):
    store = current_store()
    for number in range(PAGE + 20):
        run(store, number, prompt=f"prompt {number // 2 * 2 if number < 30 else number}")
    index = gallery()
    index.refresh()
    first = found(index, parse(""), None, stacked=True)
    second = found(index, parse(""), first.next, stacked=True)
    assert (len(first.files), len(second.files), second.next) == (PAGE, 5, None)
    assert len({each.stack for each in (*first.files, *second.files)}) == PAGE + 5


def test_a_thumbnail_is_made_once(volume: Path):
    store = current_store()
    ref: ArtifactRef = store.put(picture(7, 1000), "image/png", width=1000, height=1000)
    first = thumbnail(ref)
    assert Image.open(io.BytesIO(first)).size == (int(ON_WALL), int(ON_WALL))
    assert store.read_record(thumbnail_key(ref.sha256, ON_WALL)) == first
    store.backend.delete(key_of(ref))
    assert thumbnail(ref) == first


def test_a_run_that_ended_a_moment_after_a_look_is_read_alone(volume: Path):
    store, index = current_store(), gallery()
    index.refresh()
    made, failed = run(store, 1), run(store, 2, success=False)
    index.refresh()  # looks at most every few seconds
    assert index.ran([made.flow_run_id]) == {}
    assert index.ran_now([made.flow_run_id])[made.flow_run_id].success
    assert len(index.of_run(made.flow_run_id)) == 1
    assert not index.ran_now([failed.flow_run_id])[failed.flow_run_id].success
    run(store, 2, run_id=failed.flow_run_id)  # tried again
    assert not index.ran_now([failed.flow_run_id])[failed.flow_run_id].success
    assert index.ran_now([failed.flow_run_id], success=True)[failed.flow_run_id].success


def test_a_run_that_left_nothing_yet_is_found_once_it_has(volume: Path):
    index, refused = gallery(), str(uuid4())
    assert index.ran_now([refused]) == {}
    run(current_store(), 1, run_id=refused)
    assert index.ran_now([refused])[refused].success

"""Characters: kept with consent, refused where a picture teaches little, gone when deleted."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from safelight.characters import keeping, packing
from safelight.characters.forgetting import delete, tombstones
from safelight.characters.quality import difference, likeness, sharpness
from safelight.characters.versions import claimed, install, keep, list_versions
from safelight.errors import PipelineError
from safelight.store.store import current_store
from safelight.weights.registry import registry
from tasks.training.files import Checkpoints

AGREED = {"consent_given": True, "consent_by": "Ada"}


def picture(folder: Path, seed: int = 0, side: int = 96, name: str = "") -> Path:
    path = folder / f"{name or seed}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    rough = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(rough).resize((side, side), Image.Resampling.NEAREST).save(path)
    return path


def code_of(act) -> str:
    with pytest.raises(PipelineError) as refused:
        act()
    return refused.value.code


@pytest.fixture
def toy(volume: Path, tmp_path: Path):
    made = keeping.create("Zorbo", kind="thing", trigger="zorbo", style="flat colours")
    for seed in range(3):
        keeping.add_picture("Zorbo", picture(tmp_path, seed))
    return keeping.find(made.id)


def train(character_id: str) -> str:
    """Stands for a training: a file of some bytes, kept as a version."""
    made = current_store().put(
        b"weights of " + character_id.encode(), "application/vnd.safetensors"
    )
    version = claimed(character_id, "run")
    kept = keep(character_id, version, made, {"trigger": "zorbo", "artifacts": [made.uri]})
    return kept.sha256


def test_a_character_is_found_by_name_and_id(toy):
    assert keeping.find("Zorbo") == keeping.find(toy.id) == toy
    assert [one.name for one in keeping.list_all()] == ["Zorbo"]
    changed = keeping.update("Zorbo", name="Zorba", style="")
    assert (changed.name, changed.style, changed.trigger) == ("Zorba", "", "zorbo")
    assert code_of(lambda: keeping.find("Zorbo")) == "FILE_NOT_FOUND"
    assert code_of(lambda: keeping.create("Zorba", kind="thing")) == "INVALID_FIELD_VALUE"
    assert code_of(lambda: keeping.create("a\nb", kind="thing")) == "INVALID_FIELD_VALUE"
    first = toy.pictures[0]
    assert len(keeping.remove_picture("Zorba", first.sha256[:10]).pictures) == 2
    assert not current_store().backend.exists(toy.ref(first).uri.removeprefix("store:"))


def test_pictures_lie_with_their_character_alone(toy, volume: Path):
    assert current_store().backend.list("uploads/") == []
    assert len(current_store().backend.list(f"characters/{toy.id}/")) == 3


@pytest.mark.parametrize("flaw", ["small", "blurred", "twice", "copy", "no picture"])
def test_pictures_that_teach_little_are_refused(toy, tmp_path: Path, flaw: str):
    path = picture(tmp_path, 9, side=32 if flaw == "small" else 96)
    if flaw == "blurred":
        Image.open(path).filter(ImageFilter.GaussianBlur(20)).save(path)
    if flaw == "twice":
        path = picture(tmp_path, 0)
    if flaw == "copy":
        path = tmp_path / "copy.jpg"
        Image.open(picture(tmp_path, 0)).resize((160, 160)).save(path, quality=80)
    if flaw == "no picture":
        path.write_text("hello")
    assert code_of(lambda: keeping.add_picture("Zorbo", path)) == "INVALID_FIELD_VALUE"
    assert keeping.find("Zorbo") == toy
    assert current_store().backend.list("uploads/") == []


def test_a_person_needs_consent_and_one_face(volume: Path, tmp_path: Path, photo: np.ndarray):
    assert code_of(lambda: keeping.create("Eileen")) == "CONSENT_MISSING"
    made = keeping.create("Eileen", **AGREED)
    assert (made.consent.who, made.consent.known_by) == ("Ada", "stated")
    path = tmp_path / "eileen.png"
    Image.fromarray(photo).save(path)
    assert code_of(lambda: keeping.add_picture("Eileen", path)) == "CONSENT_MISSING"
    kept = keeping.add_picture("Eileen", path, **AGREED)
    assert kept.consent.references == {"eileen.png": kept.sha256}
    flipped = np.concatenate([photo, photo[:, ::-1]], axis=1)
    for name, pixels in (("two.png", flipped), ("none.png", photo[256:, :256].copy())):
        Image.fromarray(pixels).save(tmp_path / name)
        with pytest.raises(PipelineError, match="faces at confidence"):
            keeping.add_picture("Eileen", tmp_path / name, **AGREED)


def test_photographs_are_sharp_and_blurred_ones_are_not(photo: np.ndarray):
    blurred = np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(5)))
    assert sharpness(photo) > 100 > 25 > sharpness(blurred)
    smaller = np.asarray(Image.fromarray(photo).resize((300, 300)))
    assert difference(likeness(photo), likeness(smaller)) <= 3
    assert difference(likeness(photo), likeness(photo[:, ::-1])) > 12


def test_nothing_is_left_of_what_was_deleted(toy, volume: Path):
    sha256 = train(toy.id)
    version = list_versions(toy.id)[0]
    install(version)
    assert registry().model_exists(version.model, "lora")
    checkpoints = Checkpoints(current_store(), "train-abc", toy.pictures[0].sha256)
    checkpoints.write("step-0000001.safetensors", b"half of it")
    assert checkpoints.checkpoints() == ["step-0000001.safetensors"]
    other = keeping.create("Other", kind="thing")
    traces = [one.sha256 for one in toy.pictures] + [sha256, "Zorbo", "zorbo"]
    told = delete("Zorbo", by="Zorbo's maker".replace("Zorbo", "Z"), reason="asked for")
    assert (told.pictures, told.loras) == (3, 1)
    assert tombstones() == [told]
    assert told.by == "Z's maker"
    left = [p for p in volume.rglob("*") if p.is_file() and "registry" not in p.parts]
    assert left  # the tombstone, and the other character
    for path in left:
        for trace in traces:
            assert trace not in str(path.relative_to(volume))
            assert trace.encode() not in path.read_bytes(), path
    assert checkpoints.checkpoints() == []
    assert not registry().model_exists(version.model, "lora")
    assert keeping.list_all() == [other]
    with pytest.raises(PipelineError, match=r"was deleted at .* for Z's maker"):
        keeping.find(toy.id)


def test_a_character_goes_to_another_store_as_one_file(
    toy, volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sha256 = train(toy.id)
    file = tmp_path / "zorbo.zip"
    packing.export_character("Zorbo", file)
    assert code_of(lambda: packing.export_character("Zorbo", file)) == "INVALID_FIELD_VALUE"
    assert code_of(lambda: packing.import_character(file)) == "INVALID_FIELD_VALUE"
    delete("Zorbo", by="someone")
    assert code_of(lambda: packing.import_character(file)) == "CONSENT_MISSING"
    current_store().backend.delete(f"characters/{toy.id}.deleted.json")  # as in another store
    # weights are looked into before they are taken
    assert code_of(lambda: packing.import_character(file)) == "INVALID_FIELD_VALUE"
    assert keeping.list_all() == []
    bare = rewritten(file, tmp_path / "bare.zip", lambda name, data: data, drop="loras/")
    there = packing.import_character(bare)
    assert there.model_copy(update={"updated": toy.updated}) == toy
    assert [current_store().read(there.ref(one)) for one in there.pictures]
    assert sha256


def rewritten(source: Path, target: Path, change, drop: str = "nothing", add=()) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            if not entry.filename.startswith(drop):
                new.writestr(entry.filename, change(entry.filename, old.read(entry)))
        for name, data in add:
            new.writestr(name, data)
    return target


def _other_bytes(name: str, data: bytes) -> bytes:
    return data[:-20] + b"\0" * 20 if name.startswith("pictures/") else data


def _other_id(name: str, data: bytes) -> bytes:
    if name != packing.RECORD:
        return data
    told = json.loads(data)
    told["character"]["id"] = "../../etc"
    return json.dumps(told).encode()


def _person(name: str, data: bytes) -> bytes:
    if name != packing.RECORD:
        return data
    told = json.loads(data)
    told["character"]["kind"] = "person"
    return json.dumps(told).encode()


def _same(name: str, data: bytes) -> bytes:
    return data


@pytest.mark.parametrize(
    ("change", "drop", "add", "code"),
    [
        (_same, "nothing", [("../evil.png", b"x")], "PERMISSION_DENIED"),
        (_same, "nothing", [("/etc/passwd", b"x")], "PERMISSION_DENIED"),
        (_same, "nothing", [("pictures/../../x.png", b"x")], "PERMISSION_DENIED"),
        (_same, "nothing", [("readme.txt", b"x")], "PERMISSION_DENIED"),
        (_same, "pictures/", [], "FILE_NOT_FOUND"),
        (_same, packing.RECORD, [], "INVALID_FIELD_VALUE"),
        (_other_bytes, "nothing", [], "CHECKSUM_MISMATCH"),
        (_other_id, "nothing", [], "INVALID_FIELD_VALUE"),
        (_person, "nothing", [], "CONSENT_MISSING"),
    ],
)
def test_hostile_files_are_refused_and_nothing_is_written(
    toy, volume: Path, tmp_path: Path, change, drop: str, add: list, code: str
):
    good = tmp_path / "good.zip"
    packing.export_character("Zorbo", good)
    delete("Zorbo", by="someone")
    current_store().backend.delete(f"characters/{toy.id}.deleted.json")
    before = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    bad = rewritten(good, tmp_path / "bad.zip", change, drop, add)
    assert code_of(lambda: packing.import_character(bad)) == code
    after = sorted(p for p in tmp_path.rglob("*") if p.is_file() and p != bad)
    assert after == before


def test_what_is_no_archive_or_packed_is_refused(volume: Path, tmp_path: Path):
    file = tmp_path / "x.zip"
    file.write_bytes(b"hello")
    assert code_of(lambda: packing.import_character(file)) == "INVALID_FIELD_VALUE"
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(packing.RECORD, b" " * 1_000_000)
    file.write_bytes(held.getvalue())
    assert code_of(lambda: packing.import_character(file)) == "INVALID_FIELD_VALUE"
    assert code_of(lambda: packing.import_character(tmp_path / "no.zip")) == "FILE_NOT_FOUND"

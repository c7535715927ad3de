"""The registry finds models by name, keeps what people say of them, and loses nothing."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from safelight.digests import sha256_of
from safelight.errors import (
    DependencyMissingError,
    DiskFullError,
    ForbiddenPathError,
    InvalidFieldValueError,
    MissingFileError,
    StoreUnavailableError,
)
from safelight.settings import reload_settings
from safelight.weights.add_ons import find_add_on
from safelight.weights.checkpoints import find_checkpoint
from safelight.weights.database import Database, database_file
from safelight.weights.places import STARTER
from safelight.weights.registry import ModelRegistry, ModelType
from safelight.weights.used import licence_remarks, use
from tests.weights.files import LORA, put, safetensors


@pytest.fixture
def models(volume: Path) -> Path:
    reload_settings()
    folder = volume / "models"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def registry(models: Path) -> ModelRegistry:
    return ModelRegistry()


def names(found: "list[object]") -> list[str]:
    return sorted(info.name for info in found)  # type: ignore[attr-defined]


def test_a_scan_finds_all_kinds_below_a_folder_and_loads_none(
    registry: ModelRegistry, models: Path
):
    put(models / "dream.safetensors")
    put(models / "deep" / "er" / "other.safetensors")
    put(models / "loras" / "film.safetensors", LORA)
    (models / "upscalers").mkdir()
    (models / "upscalers" / "x4.pth").write_bytes(pickle.dumps({}))
    (models / "notes.txt").write_text("no model")
    shutil.copytree(STARTER, models / "hearts")
    found = registry.scan_models()
    assert names(found) == ["dream", "film", "hearts", "other", "x4"]
    kinds = {info.name: info.model_type for info in found}
    assert kinds["film"] is ModelType.LORA
    assert kinds["x4"] is ModelType.UPSCALER
    assert kinds["hearts"] is ModelType.CHECKPOINT
    dream = registry.get_model("dream")
    assert dream.file_path == models / "dream.safetensors"
    assert dream.file_size_bytes == dream.file_path.stat().st_size
    assert dream.sha256 == sha256_of(dream.file_path)
    assert dream.discovered_at.tzinfo is not None


def test_contract_of_counting_listing_removing_and_clearing(registry: ModelRegistry, models: Path):
    put(models / "a.safetensors")
    put(models / "loras" / "b.safetensors", LORA)
    registry.scan_models(models, hashes=False)
    assert (registry.count_models(), registry.count_models("lora")) == (2, 1)
    assert names(registry.list_models(ModelType.LORA)) == ["b"]
    assert names(registry.list_all()) == ["a", "b"]
    assert registry.model_exists("a")
    assert not registry.model_exists("a", "lora")
    assert registry.get_model_path("b") == models / "loras" / "b.safetensors"
    assert registry.remove_model("a") is True
    assert registry.remove_model("a") is False
    assert (models / "a.safetensors").exists()
    assert registry.clear() == 1
    assert registry.list_all() == []
    with pytest.raises(InvalidFieldValueError, match=r"gizmo.*checkpoint"):
        registry.list_models("gizmo")


def test_only_what_changed_is_described_and_hashed_again(registry: ModelRegistry, models: Path):
    for name in "abc":
        put(models / f"{name}.safetensors", fill=ord(name))
    assert registry.scan().hashed == 3
    again = registry.scan()
    assert (again.new, again.changed, again.gone, again.hashed) == (0, 0, 0, 0)
    put(models / "b.safetensors", fill=1)
    (models / "c.safetensors").unlink()
    third = registry.scan()
    assert (third.new, third.changed, third.gone, third.hashed) == (0, 1, 1, 1)
    assert registry.get_model("b").sha256 == sha256_of(models / "b.safetensors")


def test_a_file_written_over_between_scans_loses_its_sha256(registry: ModelRegistry, models: Path):
    put(models / "a.safetensors")
    registry.scan()
    put(models / "a.safetensors", fill=9)
    registry.scan(hashes=False)
    assert registry.get_model("a").sha256 is None


def test_duplicates_are_told_apart_by_the_folders_before_them(
    registry: ModelRegistry, models: Path
):
    put(models / "x" / "dream.safetensors")
    put(models / "y" / "dream.safetensors", fill=1)
    registry.scan()
    assert names(registry.list_all()) == ["x/dream", "y/dream"]
    with pytest.raises(InvalidFieldValueError, match=r"x/dream.*y/dream"):
        registry.get_model("dream")
    put(models / "dream.safetensors", fill=2)
    registry.scan()
    assert names(registry.list_all()) == ["dream", "x/dream", "y/dream"]
    assert find_checkpoint("x/dream").sha256 == sha256_of(models / "x" / "dream.safetensors")
    assert find_checkpoint("dream").sha256 == sha256_of(models / "dream.safetensors")


def test_an_unknown_name_lists_those_near_it(registry: ModelRegistry, models: Path):
    put(models / "sdxl" / "dreamshaper.safetensors")
    with pytest.raises(DependencyMissingError, match=r"near it are: dreamshaper"):
        find_checkpoint("dreamshapper")
    put(models / "loras" / "deep" / "film-grain.safetensors", LORA)
    with pytest.raises(DependencyMissingError, match=r"near it are: film-grain"):
        find_add_on("loras", "film-grian")
    assert find_add_on("loras", "film-grain").parent.name == "deep"


def test_what_people_say_outlives_a_scan_and_a_rewritten_file(
    registry: ModelRegistry, models: Path
):
    file = put(models / "v2-final-FIXED.safetensors")
    info = registry.register_model(
        file,
        "checkpoint",
        name="portrait",
        description="faces",
        tags=["face"],
        metadata={"note": 7},
        licence="MIT",
    )
    assert (info.name, info.description, info.tags, info.licence) == (
        "portrait",
        "faces",
        ("face",),
        "MIT",
    )
    put(file, fill=3)
    registry.scan()
    after = registry.get_model("portrait")
    assert (after.metadata["note"], after.licence) == (7, "MIT")
    assert after.sha256 == sha256_of(file)
    assert find_checkpoint("portrait").sha256 == after.sha256
    with pytest.raises(InvalidFieldValueError, match="portrait"):
        registry.register_model(put(models / "other.safetensors"), name="portrait")
    assert not registry.model_exists("other")


@pytest.mark.parametrize("name", ["", ".hidden", "a/../b", "a\nb", "a\\b", "x" * 200, "/etc"])
def test_a_name_that_cannot_be_one_is_refused(registry: ModelRegistry, models: Path, name: str):
    with pytest.raises(InvalidFieldValueError):
        registry.register_model(put(models / "a.safetensors"), name=name)


def test_what_is_no_model_is_not_registered(registry: ModelRegistry, models: Path):
    (models / "a.txt").write_text("no")
    for path in (models / "a.txt", models / "none.safetensors", models):
        with pytest.raises(MissingFileError):
            registry.register_model(path)


def test_a_model_registered_from_elsewhere_is_used(
    registry: ModelRegistry, models: Path, tmp_path: Path
):
    file = put(tmp_path / "disk" / "far.safetensors")
    registry.register_model(file)
    assert find_checkpoint("far").file_path == file
    registry.scan()
    assert registry.get_model_path("far") == file
    file.unlink()
    with pytest.raises(MissingFileError, match="far"):
        registry.get_model_path("far")


def test_a_folder_that_is_away_forgets_nothing(registry: ModelRegistry, models: Path):
    put(models / "a.safetensors")
    registry.scan()
    models.rename(models.parent / "unmounted")
    with pytest.raises(MissingFileError):
        registry.scan()
    assert registry.model_exists("a")


def test_links_out_loops_pipes_and_hostile_names_are_left_out(
    registry: ModelRegistry, models: Path, tmp_path: Path
):
    put(models / "sub" / "real.safetensors")
    (models / "alias.safetensors").symlink_to(models / "sub" / "real.safetensors")
    (models / "out.safetensors").symlink_to(put(tmp_path / "secret.safetensors"))
    (models / "outside").symlink_to(tmp_path)
    (models / "broken.safetensors").symlink_to(models / "nothing")
    (models / "sub" / "up").symlink_to(models)
    (models / "me").symlink_to(models / "me")
    os.mkfifo(models / "pipe.safetensors")
    put(models / "line\nbreak.safetensors")
    put(models / ".hidden.safetensors")
    put(models / ("n" * 140 + ".safetensors"))
    (models / "folder.safetensors").mkdir()
    (models / "bad\udcff.safetensors").write_bytes(b"x")
    scan = registry.scan()
    assert names(registry.list_all()) == ["real"]
    why = {Path(path).name: said for path, said in scan.skipped}
    assert "link" in why["out.safetensors"]
    assert "link" in why["broken.safetensors"]
    assert "plain file" in why["pipe.safetensors"]
    assert "name" in why["line\nbreak.safetensors"]
    json.dumps(scan.model_dump(mode="json"))


def test_a_folder_with_a_part_that_is_a_link_out_is_left_out(
    registry: ModelRegistry, models: Path, tmp_path: Path
):
    folder = Path(shutil.copytree(STARTER, models / "m"))
    shutil.move(folder / "unet", tmp_path / "unet")
    (folder / "unet").symlink_to(tmp_path / "unet")
    scan = registry.scan()
    assert [Path(path).name for path, _ in scan.skipped] == ["m"]
    with pytest.raises(ForbiddenPathError):
        find_checkpoint("m")


def test_a_file_that_became_a_link_out_is_forgotten(
    registry: ModelRegistry, models: Path, tmp_path: Path
):
    file = put(models / "a.safetensors")
    registry.scan()
    file.rename(tmp_path / "away.safetensors")
    file.symlink_to(tmp_path / "away.safetensors")
    assert registry.scan().gone == 1
    assert registry.list_all() == []


def test_a_folder_whose_part_is_linked_from_beside_it_has_its_licence_known(models: Path):
    folder = Path(shutil.copytree(STARTER, models / "linked"))
    (folder / "README.md").write_text("another file, so that it is another model")
    shutil.move(folder / "vae", models / "shared-vae")
    (folder / "vae").symlink_to(models / "shared-vae")
    facts = json.loads((folder / "safelight.json").read_text())
    (folder / "safelight.json").write_text(json.dumps({**facts, "files": None, "licence": "MIT"}))
    assert licence_remarks([find_checkpoint("linked").sha256]) == ()


def test_files_made_to_harm_are_entered_with_their_problem(registry: ModelRegistry, models: Path):
    (models / "evil.ckpt").write_bytes(pickle.dumps(os.system))
    (models / "liar.safetensors").write_bytes(pickle.dumps(print))
    (models / "deep.safetensors").write_bytes(
        (9000).to_bytes(8, "little") + b"{" + b'"a":[' * 1799 + b"     "
    )
    (models / "empty.safetensors").write_bytes(b"")
    put(models / "good.safetensors")
    found = {info.name: info.metadata.get("problem") for info in registry.scan_models()}
    assert found.pop("good") is None
    assert "INVALID_FIELD_VALUE" in str(found["evil"])
    assert "system" in str(found["evil"])
    assert all(found.values())


@pytest.mark.parametrize("damage", ["lost", "zeros", "text", "cut"])
def test_a_registry_that_is_lost_or_damaged_is_filled_by_a_scan(
    registry: ModelRegistry, models: Path, damage: str
):
    for number in range(40):
        put(models / f"m{number}.safetensors", fill=number)
    registry.scan()
    file = database_file()
    for end in ("-wal", "-shm"):
        Path(f"{file}{end}").unlink(missing_ok=True)
    whole = file.read_bytes()
    if damage == "lost":
        file.unlink()
    else:
        damaged = {"zeros": bytes(len(whole)), "text": b"hello" * 900, "cut": whole[:5000]}
        file.write_bytes(damaged[damage])
    assert find_checkpoint("m7").name == "m7"
    registry.scan()
    assert registry.count_models() == 40
    assert registry.get_model("m7").sha256 == sha256_of(models / "m7.safetensors")
    aside = list(file.parent.glob("*.damaged-*"))
    assert len(aside) == (damage != "lost")


def test_a_registry_that_cannot_be_made_says_so(volume: Path):
    volume.mkdir(parents=True)
    (volume / "registry").write_text("a file")
    with pytest.raises((ForbiddenPathError, StoreUnavailableError)):
        ModelRegistry().list_all()


def test_a_full_disk_is_told_as_one(volume: Path):
    import sqlite3

    database = Database(volume / "registry" / "x.db")

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 12")  # as a disk with no page left
        for number in range(1000):
            connection.execute(
                "INSERT INTO acknowledgements (source, code, who, at) VALUES (?, '', '', '')",
                (f"{number}" * 500,),
            )

    with pytest.raises(DiskFullError):
        database.write(fill)


def test_who_took_what_is_kept_when_models_are_cleared(registry: ModelRegistry):
    registry.acknowledge("https://example.org/a", "LICENSE_UNKNOWN", "ann", "0" * 64)
    registry.clear()
    (one,) = registry.acknowledgements("0" * 64)
    assert (one["who"], one["code"]) == ("ann", "LICENSE_UNKNOWN")
    assert str(one["at"]).startswith("20")


PROCESS = """
import sys
from pathlib import Path
from safelight.weights.registry import ModelRegistry
from tests.weights.files import put
who, folder = sys.argv[1], Path(sys.argv[2])
registry = ModelRegistry()
print("ready", flush=True)
sys.stdin.readline()
for number in range(12):
    file = put(folder / who / f"{who}{number}.safetensors", fill=number)
    registry.register_model(file, name=f"mine-{who}-{number}", tags=[who])
    if number % 4 == 0:
        registry.scan(folder, hashes=number % 8 == 0)
    registry.acknowledge(f"{who}{number}", "LICENSE_UNKNOWN", who, None)
assert not {"torch", "safetensors"} & set(sys.modules), "weights were loaded"
"""


@pytest.mark.slow
def test_two_processes_that_scan_and_register_at_once_lose_nothing(models: Path):
    for number in range(30):
        put(models / "common" / f"c{number}.safetensors", fill=number)
    working = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, who, str(models)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "VOLUME_ROOT": str(models.parent)},
        )
        for who in ("a", "b")
    ]
    for process in working:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in working:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
    for process in working:
        assert process.wait(120) == 0
        assert process.stdout is not None
        process.stdout.close()
    registry = ModelRegistry()
    registry.scan()
    known = {info.name: info for info in registry.list_all()}
    assert len(known) == 54
    for who in ("a", "b"):
        for number in range(12):
            info = known[f"mine-{who}-{number}"]
            assert info.tags == (who,)
            assert info.sha256 == sha256_of(info.file_path)
    assert len(registry.acknowledgements()) == 24


def test_licences_that_are_unknown_or_forbid_sales_are_remarked(
    registry: ModelRegistry, models: Path
):
    put(models / "free.safetensors", fill=1, modelspec__license="Apache-2.0")
    put(models / "nobody.safetensors", fill=2)
    put(models / "nc.safetensors", fill=3, modelspec__license="CC-BY-NC-4.0")
    cards = {name: find_checkpoint(name) for name in ("free", "nobody", "nc")}
    weights = [card.sha256 for card in cards.values()]
    remarks = licence_remarks(weights)
    assert len(remarks) == 2
    assert "nobody" in remarks[0]
    assert "not known" in remarks[0]
    assert "forbids commercial use" in remarks[1]
    assert licence_remarks([find_checkpoint("starter").sha256]) == ()
    registry.clear()
    assert licence_remarks(weights) == remarks
    registry.register_model(models / "nobody.safetensors", licence="MIT")
    registry.scan()
    assert len(licence_remarks(weights)) == 1
    (unheard,) = licence_remarks(["f" * 64])
    assert "ffffffffffff" in unheard


def test_a_registry_that_fails_keeps_no_model_from_being_used(models: Path):
    put(models / "a.safetensors")
    (models.parent / "registry").write_text("a file")
    use.cache_clear()
    assert find_checkpoint("a").name == "a"
    (said,) = licence_remarks(["e" * 64])
    assert "not known" in said


def test_the_bytes_of_a_file_decide_not_its_name(registry: ModelRegistry, models: Path):
    (models / "x.ckpt").write_bytes(safetensors(LORA))
    registry.scan()
    assert registry.get_model("x").model_type is ModelType.LORA

"""Records in the store that others wrote: nothing in them is obeyed."""

import json
import pickle
from base64 import encodebytes
from pathlib import Path

import pytest
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer

from safelight.errors import ForbiddenPathError
from safelight.provenance.manifest import RunResult
from safelight.store.artifact import ArtifactRef
from safelight.store.results import PREFIX, REFERENCE, RUN_RESULT, SafelightResults
from safelight.store.store import current_store


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def ref(volume: Path) -> ArtifactRef:
    return current_store().put(b"picture", "image/png")


@pytest.fixture
def results(ref: ArtifactRef) -> ResultStore:
    return ResultStore(result_storage=SafelightResults(), serializer=JSONSerializer())


def keep(results: ResultStore, made: object) -> None:
    """As Prefect keeps it."""
    content = results.create_result_record(made, key="k").serialize()
    SafelightResults().write_path("k", content)


def record(result: object, **head: object) -> dict[str, object]:
    return {"metadata": {"storage_key": "k", **head}, "result": json.dumps(result)}


def given(ref: ArtifactRef) -> dict[str, object]:
    return {"__class__": REFERENCE, "data": ref.model_dump(mode="json")}


@pytest.mark.parametrize("many", [False, True])
def test_what_a_stage_gave_is_read_back(results: ResultStore, ref: ArtifactRef, many: bool):
    made = [ref, ref] if many else ref
    keep(results, made)
    assert results.read("k").result == made


def test_what_a_flow_gave_is_read_back(results: ResultStore, ref: ArtifactRef):
    made = RunResult(success=True, data={"seeds": {"generate": 7}}, artifacts=(ref,))
    keep(results, made)
    assert results.read("k").result == made


@pytest.mark.parametrize("kind", ["pickle", "compressed/pickle"])
def test_a_record_that_asks_for_pickle_is_not_there(
    results: ResultStore, ref: ArtifactRef, tmp_path: Path, kind: str
):
    mark = tmp_path / "ran"
    pickled = encodebytes(pickle.dumps(Touch(mark))).decode()
    evil = {"metadata": {"storage_key": "k", "serializer": {"type": kind}}, "result": pickled}
    current_store().write_record(PREFIX + "k", json.dumps(evil).encode())
    with pytest.raises(ValueError, match="not a result"):
        results.read("k")
    assert not results.exists("k")
    assert not mark.exists()


@pytest.mark.parametrize("uri", ["store:../../etc/hostname", "store:/etc/hostname", "store:a\0b"])
def test_a_record_that_names_what_is_no_key_of_ours_is_not_there(
    results: ResultStore, ref: ArtifactRef, uri: str
):
    named = {**ref.model_dump(mode="json"), "uri": uri}
    result = {"__class__": REFERENCE, "data": named}
    current_store().write_record(PREFIX + "k", json.dumps(record(result)).encode())
    with pytest.raises(ValueError, match="gone or cut short"):
        results.read("k")
    assert not results.exists("k")


def test_the_error_of_a_run_is_read_with_and_without_a_head(results: ResultStore):
    said = {"__exc_type__": "safelight.errors.ForbiddenPathError", "message": "[X] a. Fix: b."}
    for key, content in (("bare", json.dumps(said)), ("headed", json.dumps(record(said)))):
        current_store().write_record(PREFIX + key, content.encode())
        found = results.read(key).result
        assert isinstance(found, ForbiddenPathError)
        assert (found.problem, found.remedy) == ("a", "b")
    for wrong in ({**said, "more": 1}, {**said, "message": []}, {**said, "__exc_type__": ["x"]}):
        current_store().write_record(PREFIX + "k", json.dumps(wrong).encode())
        with pytest.raises(ValueError, match="not a result"):
            results.read("k")


def test_the_head_of_a_record_is_not_obeyed(results: ResultStore, ref: ArtifactRef):
    head = {"type": "json", "object_decoder": "webbrowser.open", "jsonlib": "antigravity"}
    content = json.dumps(record(given(ref), serializer=head, expiration="no date")).encode()
    current_store().write_record(PREFIX + "k", content)
    assert results.read("k").result == ref


@pytest.mark.parametrize(
    "result",
    [
        5,
        None,
        [[]],
        {"__class__": "antigravity.Anything", "data": {}},
        {"__class__": "subprocess.Popen", "data": ["id"]},
        {"__class__": REFERENCE, "data": {"uri": "store:x"}},
        {"__class__": REFERENCE, "data": {}, "more": 1},
        {"__exc_type__": "builtins.SystemExit", "message": "x"},
        {"__class__": RUN_RESULT, "data": {"x": {"__class__": "antigravity.X", "data": 1}}},
        {"__class__": RUN_RESULT, "data": {"x": [{"__exc_type__": "builtins.X", "message": 1}]}},
        {"__class__": RUN_RESULT, "data": {"x": float("nan")}},
        {"__class__": [], "data": {}},
    ],
)
def test_other_results_are_not_there(results: ResultStore, result: object):
    current_store().write_record(PREFIX + "k", json.dumps(record(result)).encode())
    with pytest.raises(ValueError, match="not a result"):
        results.read("k")


@pytest.mark.parametrize(
    "content", [b"", b"5", b"[]", b"[" * 100_000, b"\xff", b'{"result": 5}', b'{"result": "x"}']
)
def test_damaged_records_are_not_there(results: ResultStore, content: bytes):
    current_store().write_record(PREFIX + "k", content)
    with pytest.raises(ValueError, match="not a result"):
        results.read("k")

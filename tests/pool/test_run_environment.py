"""What a run may set of the environment of a warm process, and that it ends with the run."""

from pathlib import Path
from uuid import uuid4

import pytest

from safelight.pool.child import run_environment
from safelight.pool.configuration import RUN_MAY_SET, settable
from safelight.pool.messages import Run
from safelight.settings import reload_settings
from safelight.store.store import current_store

GUARDS = (
    "VOLUME_ROOT SAFELIGHT_INPUT_ROOTS SAFELIGHT_STORE SAFELIGHT_MODELS_DIR SAFELIGHT_S3_SECRET_KEY"
    " SAFELIGHT_MAX_INPUT_MEGAPIXELS PYTHONPATH PYTHONSTARTUP LD_PRELOAD LD_LIBRARY_PATH PATH HOME"
    " PREFECT_API_URL PREFECT_RESULTS_DEFAULT_SERIALIZER AWS_ENDPOINT_URL HF_ENDPOINT"
).split()


def test_guards_are_the_workers_own():
    kept, ignored = settable({**dict.fromkeys(GUARDS, "x"), "PREFECT_LOGGING_LEVEL": "DEBUG"})
    assert kept == {"PREFECT_LOGGING_LEVEL": "DEBUG"}
    assert ignored == tuple(sorted(GUARDS))


def test_a_worker_lets_runs_set_more_but_no_guard(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAFELIGHT_POOL_RUN_ENV", ", ".join(["COLOUR", *GUARDS]))
    reload_settings()
    kept, ignored = settable({"COLOUR": "red", "OTHER": "x", **dict.fromkeys(GUARDS, "x")})
    assert kept == {"COLOUR": "red"}
    assert set(ignored) == {"OTHER", *GUARDS}


def test_each_run_has_the_store_of_its_own_settings(volume: Path, tmp_path: Path):
    before = current_store()
    other = Run(flow_run_id=uuid4(), environment={"VOLUME_ROOT": str(tmp_path / "other")})
    with run_environment(other):
        assert current_store().scratch.is_relative_to(tmp_path / "other")
    assert current_store().scratch == before.scratch
    kept = current_store()
    with run_environment(Run(flow_run_id=uuid4(), environment={})):
        assert current_store() is kept, "its pixels stay in memory from run to run"


@pytest.mark.parametrize("name", sorted(RUN_MAY_SET))
def test_what_any_run_may_set_names_no_place(name: str):
    assert name.startswith(("PREFECT_TASKS_", "PREFECT_LOGGING_LEVEL"))

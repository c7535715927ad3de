"""A wrong setting is one line that names its variable."""

import pytest

from safelight.errors import InvalidFieldValueError
from safelight.settings import reload_settings, settings
from safelight.store import scratch


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SAFELIGHT_STORE", "bucket/renders", "s3://BUCKET"),
        ("SAFELIGHT_STORE_PATIENCE_SECONDS", "1h", "a number"),
        ("SAFELIGHT_POOL_RECYCLE_AFTER", "often", "a whole number"),
        ("SAFELIGHT_POOL_RECYCLE_AFTER", "0", "greater than or equal to 1"),
        ("SAFELIGHT_DEVICE", "gpu", "cuda:NUMBER"),
        ("SAFELIGHT_PRECISION", "half", "'fp16'"),
    ],
)
def test_a_wrong_setting_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
):
    with monkeypatch.context() as changed:
        changed.setenv(variable, value)
        settings.cache_clear()
        with pytest.raises(InvalidFieldValueError) as refused:
            settings()
        assert refused.value.problem.startswith(f"{variable} is '{value}', expected ")
        assert expected in refused.value.problem
        assert variable in refused.value.remedy
    reload_settings()


def test_what_documents_say_of_settings_that_nobody_made(monkeypatch: pytest.MonkeyPatch):
    for variable in ("MODEL_MEMORY_GIB", "STORE_PATIENCE_SECONDS"):
        monkeypatch.delenv(f"SAFELIGHT_{variable}", raising=False)
    reload_settings()
    assert settings().model_memory_gib == 16
    assert settings().store_patience_seconds == 120
    assert scratch.KEPT_BYTES == 8 * 2**30
    reload_settings()

"""API keys: shown once, kept hashed, refused when their time is over."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safelight.access import keys
from safelight.access.keys import (
    Key,
    Limits,
    Scope,
    any_key,
    find_key,
    keys_folder,
    last_use,
    list_keys,
    make_key,
    recognised,
    revoke_key,
)
from safelight.audit.log import lines, log_folder
from safelight.cli.commands import app
from safelight.errors import AuthInvalidError, InvalidFieldValueError, MissingFileError


def made(name: str = "ann", scope: Scope = Scope.OPERATOR, days: float | None = None):
    return make_key(name, scope, days, Limits())


def test_a_key_is_known_again_and_kept_nowhere(volume: Path):
    assert not any_key()
    key, token = made()
    assert any_key()
    assert recognised(token) == key == find_key(key.id)
    secret = token.split("_", 2)[2]
    kept = [path for path in volume.rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        assert secret not in path.read_text()
        assert path.stat().st_mode & 0o077 == 0


def test_what_is_no_key_is_refused(volume: Path):
    _, token = made()
    other, _ = made("bob")
    wrong = (
        "",
        "x",
        token[:-1],
        token + "A",
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        token.replace("slk_", "sk_"),
        f"slk_{other.id}_{token.split('_', 2)[2]}",
        f"slk_{'0' * 12}_{'A' * 43}",
        f"slk_../../../../x_{'A' * 43}",
        token + "\n",
    )
    for each in wrong:
        with pytest.raises(AuthInvalidError, match="none of this gateway's"):
            recognised(each)


def test_it_ends_with_its_time_and_when_it_is_taken_back(volume: Path):
    key, token = made(days=1)
    assert key.expires is not None
    assert timedelta(hours=23) < key.expires - datetime.now(UTC) <= timedelta(days=1)
    late = key.model_copy(update={"expires": datetime.now(UTC) - timedelta(seconds=1)})
    (keys_folder() / f"{key.id}.json").write_text(late.model_dump_json())
    with pytest.raises(AuthInvalidError, match="is expired"):
        recognised(token)
    key, token = made()
    recognised(token)
    assert revoke_key(key.id).state == "revoked"
    assert revoke_key(key.id).revoked == find_key(key.id).revoked
    with pytest.raises(AuthInvalidError, match="is revoked"):
        recognised(token)
    assert any_key()
    assert [line.event_type for line in lines(log_folder(), about=key.id)] == [
        "key.made",
        "key.revoked",
    ]


def test_the_last_use_is_known(volume: Path, monkeypatch: pytest.MonkeyPatch):
    key, token = made()
    assert last_use(key) is None
    recognised(token)
    first = last_use(key)
    assert first is not None
    recognised(token)
    assert last_use(key) == first  # to the minute
    monkeypatch.setattr(keys, "USED_SECONDS", -1)
    recognised(token)
    assert last_use(key) > first


def test_scopes_hold_those_below():
    order = [Scope.VIEWER, Scope.OPERATOR, Scope.ADMIN]
    for at, mine in enumerate(order):
        assert [mine.covers(wanted) for wanted in order] == [n <= at for n in range(3)]


def test_what_no_key_can_be_is_refused(volume: Path):
    for name in ("", " ", "x" * 101, "a\nb"):
        with pytest.raises(InvalidFieldValueError):
            made(name)
    for days in (0, -1, float("nan"), 1e9):
        with pytest.raises(InvalidFieldValueError):
            made(days=days)
    for name in ("nosuch", "../../etc/passwd", "0" * 12):
        with pytest.raises(MissingFileError):
            revoke_key(name)
    assert list_keys() == []


def test_the_command_shows_it_once(volume: Path):
    cli = CliRunner()
    made = cli.invoke(app, ["keys", "create", "studio", "--scope", "viewer", "--days", "7"])
    assert made.exit_code == 0, made.output
    token = made.output.split()[0]
    assert recognised(token).name == "studio"
    found = cli.invoke(app, ["keys", "list", "--json"])
    (facts,) = json.loads(found.output)
    assert (facts["scope"], facts["state"]) == ("viewer", "active")
    assert facts["last_use"] is not None
    assert "digest" not in facts
    assert token not in found.output
    taken = cli.invoke(app, ["keys", "revoke", facts["id"]])
    assert "is revoked" in taken.output
    assert "revoked" in cli.invoke(app, ["keys", "list"]).output
    (line,) = [line for line in lines(log_folder()) if line.event_type == "key.made"]
    assert line.actor.startswith("account:")
    assert cli.invoke(app, ["keys", "revoke", "nosuch"]).exit_code == 1


def test_records_of_later_versions_are_no_key_of_this_one(volume: Path):
    key, _ = made()
    fields = json.loads((keys_folder() / f"{key.id}.json").read_bytes())
    with pytest.raises(ValueError, match="more"):
        Key.model_validate({**fields, "more": 1})

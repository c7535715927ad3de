"""A new embedded server begins with the tables of Prefect, and only where there are none."""

import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_HOME, temporary_settings

from safelight.cli.new_database import DATABASE, begin_with_tables, prepare, prepared
from safelight.cli.prefect_server import begin


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Path:
    """Of an environment that was set up."""
    made = tmp_path_factory.mktemp("prefix")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "prefix", str(made))
        prepared().parent.mkdir(parents=True)
        shutil.copy(database, prepared())
    return made


@pytest.fixture(autouse=True)
def _in_it(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(prefix))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment that has just been set up."""
    made = tmp_path_factory.mktemp("fresh")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "prefix", str(made))
        prepare()
    return made


@pytest.fixture
def _in_fresh(_in_it: None, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(fresh))


def rows(file: Path, query: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(f"file:{file}?immutable=1", uri=True)) as opened:
        return sorted(opened.execute(query).fetchall())


def in_any_order(tables: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Each with its lines sorted: migrations write a table's constraints in no fixed order."""
    return [
        (*entry, *sorted(line.strip().rstrip(",") for line in sql.splitlines()))
        for *entry, sql in tables
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("_in_fresh")
def test_it_has_the_tables_of_the_migrations_and_no_rows(database: Path):
    tables = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master"
    version = "SELECT version_num FROM alembic_version"
    assert len(rows(prepared(), tables)) > 100
    assert in_any_order(rows(prepared(), tables)) == in_any_order(rows(database, tables))
    assert rows(prepared(), version) == rows(database, version)
    names = [name for kind, name, *_ in rows(prepared(), tables) if kind == "table"]
    filled = {name for name in names if rows(prepared(), f"SELECT 1 FROM '{name}'")}
    assert filled == {"alembic_version"}


@pytest.mark.slow
@pytest.mark.usefixtures("_in_fresh")
def test_what_is_made_is_left_alone():
    before = prepared().stat()
    prepare()
    assert prepared().stat() == before
    assert [file.name for file in prepared().parent.iterdir()] == [prepared().name]


def test_a_new_home_gets_a_private_copy(tmp_path: Path):
    (tmp_path / f"{DATABASE}.new").write_text("of one that was killed")
    assert begin_with_tables(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == prepared().read_bytes()
    assert (tmp_path / DATABASE).stat().st_mode & 0o077 == 0
    assert [file.name for file in tmp_path.iterdir()] == [DATABASE]


@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-journal"])
def test_a_part_of_a_database_is_left_alone(tmp_path: Path, end: str):
    (tmp_path / f"{DATABASE}{end}").write_bytes(b"somebody's")
    assert not begin_with_tables(tmp_path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"somebody's"]


def test_without_it_prefect_makes_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "not set up"))
    assert not begin_with_tables(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_server_begins_the_database_of_its_home_alone(tmp_path: Path):
    with temporary_settings({PREFECT_HOME: tmp_path}):
        begin()
    assert (tmp_path / DATABASE).exists()
    other = tmp_path / "other"
    other.mkdir()
    url = f"sqlite+aiosqlite:///{tmp_path / 'elsewhere.db'}"
    with temporary_settings({PREFECT_HOME: other, PREFECT_API_DATABASE_CONNECTION_URL: url}):
        begin()
    assert not list(other.iterdir())
    assert not (tmp_path / "elsewhere.db").exists()

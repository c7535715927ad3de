"""Places for files under names of people's choice: nothing in them is ever overwritten."""

import errno
import os
from pathlib import Path, PurePosixPath
from uuid import uuid4

import pytest

from safelight.errors import ForbiddenPathError
from safelight.exports.placing import Placing
from safelight.exports.template import parse
from safelight.store.places import BucketPlace, DiskPlace, Place
from safelight.store.store import current_store
from tests.exports.hostile import WRITTEN
from tests.exports.making import result

pytestmark = pytest.mark.usefixtures("volume")
NAMES = parse("{folder}/{name}", "names")


@pytest.fixture(
    name="somewhere", params=["folder", "moto", pytest.param("radosgw", marks=pytest.mark.slow)]
)
def place_of_each_kind(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return DiskPlace(tmp_path / "exports", private=True)
    bucket = request.getfixturevalue(request.param).opened(f"test/{uuid4()}")
    return BucketPlace(bucket, "exports/", 0)


def test_what_is_there_stays_and_is_found_again(somewhere: Place):
    one, other = result(b"one", name="a"), result(b"other", name="a")
    path = PurePosixPath("müller & söhne/größe 1+1 100%.png")
    source = current_store().fetch
    assert somewhere.entries(path.parent) == []
    assert not somewhere.holds(path, one.ref)
    assert somewhere.put(path, source(one.ref), one.ref)
    assert not somewhere.put(path, source(other.ref), other.ref)
    assert somewhere.holds(path, one.ref)
    assert not somewhere.holds(path, other.ref)
    assert list(somewhere.entries(path.parent)) == [(path.name, False)]
    assert list(somewhere.entries(PurePosixPath())) == [(path.parts[0], True)]
    assert somewhere.shown(path).endswith(str(path))


def test_results_come_to_the_same_places_again(somewhere: Place):
    results = [result(f"{n}", name=text, folder="x/Y") for n, text in enumerate(WRITTEN)]
    results += [result("again", name="fish", folder="X/y")]
    first = Placing(somewhere, NAMES)
    places = [first.put(each) for each in results]
    assert len(set(places)) == len(results)
    second = Placing(somewhere, NAMES)
    assert [second.put(each) for each in results] == places
    found = [name for name, is_folder in somewhere.entries(PurePosixPath("x/Y")) if not is_folder]
    assert len(found) == len(results)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_disk_without_hard_links_overwrites_nothing_either(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
):
    """As FAT and many network shares are; links are all that is taken away from this one."""

    def link(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), source, None, target)

    monkeypatch.setattr(os, "link", link)
    place = DiskPlace(tmp_path / "out", private=False)
    one, other = result(b"one"), result(b"other")
    path = PurePosixPath("a.png")
    assert place.put(path, current_store().fetch(one.ref), one.ref)
    assert not place.put(path, current_store().fetch(other.ref), other.ref)
    assert (tmp_path / "out" / "a.png").read_bytes() == b"one"
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path):
    closed = tmp_path / "closed"
    closed.mkdir(0o500)
    one = result(b"one")
    with pytest.raises(ForbiddenPathError, match="closed"):
        DiskPlace(closed, private=False).put(
            PurePosixPath("a.png"), current_store().fetch(one.ref), one.ref
        )


def test_a_link_of_s3_is_saved_under_its_name(moto):
    from safelight.exports.placing import disposition

    bucket = moto.opened(f"test/{uuid4()}")
    bucket.write("outputs/ab/a.png", b"x", "image/png")
    import httpx

    said = disposition('größe "1".png')
    answer = httpx.get(bucket.link("outputs/ab/a.png", 60, said), trust_env=False)
    assert answer.headers["content-disposition"] == said
    assert (
        said == "inline; filename=\"gr__e _1_.png\"; filename*=UTF-8''gr%C3%B6%C3%9Fe%20%221%22.png"
    )

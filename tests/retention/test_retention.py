"""What goes from a store and what stays, in a folder and in a bucket."""

import hashlib
import os
import subprocess
import sys
import textwrap
import time

import boto3
import pytest
from moto import mock_aws

from safelight.audit.log import lines, log_folder
from safelight.provenance.identity import EngineIdentity
from safelight.provenance.manifest import Manifest, StageEntry, keep_manifest
from safelight.retention import removing
from safelight.retention.gathering import Limits
from safelight.retention.removing import Going, collect
from safelight.settings import reload_settings
from safelight.store.ratings import rate, ratings
from safelight.store.stars import keep, kept, let_go
from safelight.store.store import current_store

DAY = 24 * 3600
RUN = "0a1b2c3d-0000-4000-8000-00000000000{}"


class Stored:
    """A store whose things are as old as the test says."""

    def __init__(self, volume):
        self.volume = volume
        self.store = current_store()

    def file(self, content, days, folder="outputs"):
        ref = self.store.put(content.encode(), "image/png", folder=folder)
        self.age(ref.uri.removeprefix("store:"), days)
        return ref

    def record(self, key, text, days):
        self.store.backend.write(key, text.encode(), "application/json")
        self.age(key, days)
        return key

    def age(self, key, days):
        at = time.time() - days * DAY
        os.utime(self.volume / key, (at, at))

    def manifest(self, run, days, *results):
        made = Manifest(
            flow="generate",
            flow_run_id=RUN.format(run),
            parameters={},
            stages=(
                StageEntry(
                    name="generate",
                    stage_type="generate",
                    status="done",
                    parameters={},
                    results=results,
                    engine=EngineIdentity(engine_id="e", version="1"),
                ),
            ),
            versions={},
            device_class="cpu",
            device_name="x",
            started="2026-01-01T00:00:00+00:00",
            ended="2026-01-01T00:00:00+00:00",
            success=True,
        )
        self.age(keep_manifest(self.store, made), days)

    def cached(self, ref, days):
        """A result record of Prefect's that names a file."""
        name = hashlib.sha256(ref.sha256.encode()).hexdigest()[:12]
        text = '{"result": "{\\"data\\": {\\"uri\\": \\"%s\\"}}"}' % ref.uri  # noqa: UP031
        return self.record(f"cache/results/generate-{name}", text, days)

    @property
    def keys(self):
        folders = ("outputs/", "uploads/", "cache/")
        found = {key for folder in folders for key in self.store.backend.list(folder)}
        return {key for key in found if not key.startswith("cache/owners/")}


@pytest.fixture
def stored(volume):
    volume.mkdir(parents=True)
    return Stored(volume)


def _nobody():
    return Going()


def _key(ref):
    return ref.uri.removeprefix("store:")


def test_only_what_nothing_names_goes_and_only_when_told(stored):
    orphan, young = stored.file("orphan", 40), stored.file("young", 3)
    named, sent = stored.file("named", 90), stored.file("sent", 90, "uploads")
    stored.manifest(1, 90, named)
    shown = stored.file("shown", 90)
    stored.record("characters/anna.json", f'{{"sha256": "{shown.sha256}"}}', 90)
    before = stored.keys
    looked = collect(Limits(30), _nobody)
    assert stored.keys == before
    assert looked.counts == {"results": 1, "uploads": 1}
    assert looked.bytes == {"results": len("orphan"), "uploads": len("sent")}
    assert list(lines(log_folder())) == []
    removed = collect(Limits(30), _nobody, delete=True)
    assert removed.counts == looked.counts
    (told,) = lines(log_folder())
    assert (told.event_type, told.details) == ("store.tidied", looked.counts)
    assert before - stored.keys == {_key(orphan), _key(sent)}
    assert stored.store.read(young)
    assert stored.store.read(named)
    assert stored.store.read(shown)


def test_old_runs_go_unless_a_file_of_theirs_is_starred(stored):
    plain, loved, beside = (stored.file(name, 90) for name in ("plain", "loved", "beside"))
    stored.manifest(1, 90, plain)
    stored.manifest(2, 90, loved, beside)
    shared = stored.file("shared", 90)
    stored.manifest(3, 90, shared)
    stored.manifest(4, 2, shared)
    keep(current_store(), loved.sha256)
    assert kept(current_store()) == {loved.sha256}
    assert collect(Limits(30), _nobody).counts == {}
    collect(Limits(30, runs_days=60), _nobody, delete=True)
    left = stored.keys
    assert f"outputs/manifests/{RUN.format(1)}.json" not in left
    assert f"outputs/manifests/{RUN.format(3)}.json" not in left
    assert f"outputs/manifests/by-artifact/{plain.sha256}.json" not in left
    assert {_key(loved), _key(beside), _key(shared)} <= left
    assert _key(plain) not in left
    assert f"outputs/manifests/{RUN.format(2)}.json" in left
    let_go(current_store(), loved.sha256)
    collect(Limits(30, runs_days=60), _nobody, delete=True)
    assert not {_key(loved), _key(beside)} & stored.keys


def test_a_rating_keeps_no_file_and_goes_with_it(stored):
    old, young = stored.file("old", 90), stored.file("young", 2)
    for ref, value in ((old, 5), (young, -1)):
        rate(current_store(), ref.sha256, value)
    looked = collect(Limits(30), _nobody, delete=True)
    assert looked.counts == {"results": 1, "index": 1}
    assert ratings(current_store()) == {young.sha256: -1}


def test_caches_and_abandoned_parts_go_by_the_youngest_of_a_stage(stored):
    kept = stored.record("cache/results/a", "{}", 2)
    stored.record("cache/results/b", "{}", 40)
    stored.record("cache/frames/one/0.mkv", "x", 50)
    stored.record("cache/frames/one/1.mkv", "x", 40)
    alive = {stored.record(f"cache/frames/two/{at}.mkv", "x", 50 - at * 49) for at in (0, 1)}
    stored.record("cache/training/key/5/about.json", "{}", 40)
    paid = stored.record("cache/jobs/k.json", "{}", 400)
    removed = collect(Limits(30), _nobody, delete=True)
    assert removed.counts == {"cache": 1, "frames": 2, "checkpoints": 1}
    assert {key for key in stored.keys if key.startswith("cache/")} == {kept, paid, *alive}


def test_what_a_run_was_given_stays(stored):
    given = stored.file("given", 90, "uploads")
    going = Going(frozenset({given.sha256}), since=time.time() - 60)
    assert collect(Limits(30), lambda: going, delete=True).counts == {}
    assert stored.store.read(given)
    # one that is submitted between the look and the removal is asked for once more
    asked = iter([Going(), going])
    assert collect(Limits(30), lambda: next(asked), delete=True).waiting == 1
    assert stored.store.read(given)


def test_what_a_run_may_have_found_in_the_cache_waits_until_it_has_ended(stored):
    found = stored.file("found", 90)
    record = stored.cached(found, 90)
    began = time.time() - 60
    running = Going(since=began)
    first = collect(Limits(30), lambda: running, delete=True)
    assert (first.counts, first.waiting) == ({"cache": 1}, 1)
    assert record not in stored.keys
    second = collect(Limits(30), lambda: running, delete=True)
    assert (second.counts, second.waiting) == ({}, 1)
    assert stored.store.read(found)
    later = Going(since=time.time() + 1)  # began when the record was gone
    assert collect(Limits(30), lambda: later, delete=True).counts == {"results": 1}
    assert _key(found) not in stored.keys
    assert removing._retired(stored.store.backend) == {}


def test_who_puts_a_file_again_keeps_it(stored, monkeypatch):
    orphan = stored.file("orphan", 90)
    stored.store.put(b"orphan", "image/png")
    assert collect(Limits(30), _nobody, delete=True).counts == {}
    stored.age(_key(orphan), 90)

    def put_meanwhile():
        stored.store.put(b"orphan", "image/png")
        return Going()

    asked = iter([_nobody, put_meanwhile])
    collect(Limits(30), lambda: next(asked)(), delete=True)
    assert stored.store.read(orphan)


@pytest.mark.slow
def test_a_kill_in_the_middle_leaves_what_the_next_time_takes(stored, tmp_path):
    refs = [stored.file(f"orphan {at}", 90) for at in range(6)]
    for ref in refs[:3]:
        stored.manifest(refs.index(ref), 90, ref)
    keeper = stored.file("keeper", 90)
    stored.manifest(9, 1, keeper)
    program = textwrap.dedent(
        """
        import os, sys
        from safelight.retention.gathering import Limits
        from safelight.retention.removing import Going, collect
        from safelight.store.store import current_store
        inner, left = current_store().backend, [int(sys.argv[1])]
        delete = type(inner).delete
        def dying(self, key):
            if left[0] == 0:
                os.kill(os.getpid(), 9)
            left[0] -= 1
            delete(self, key)
        type(inner).delete = dying
        collect(Limits(30, runs_days=60), Going, delete=True)
        """
    )
    for deletions in (0, 2, 3):
        done = subprocess.run([sys.executable, "-c", program, str(deletions)], check=False)
        assert done.returncode == -9
        assert stored.store.read(keeper)
    collect(Limits(30, runs_days=60), _nobody, delete=True)
    files = {key for key in stored.keys if not key.startswith("outputs/manifests/")}
    assert files <= {_key(keeper), removing.RETIRED}
    assert f"outputs/manifests/{RUN.format(9)}.json" in stored.keys


def test_a_bucket(volume, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_STORE", "s3://pictures/here")
    monkeypatch.setenv("SAFELIGHT_S3_ACCESS_KEY", "a")
    monkeypatch.setenv("SAFELIGHT_S3_SECRET_KEY", "b")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="pictures")
        client.put_object(Bucket="pictures", Key="elsewhere/outputs/ab/x", Body=b"x")
        reload_settings()
        current_store.cache_clear()
        store = current_store()
        orphan = store.put(b"orphan", "image/png")
        store.settle()
        begun = client.create_multipart_upload(Bucket="pictures", Key="here/outputs/big.png")
        assert collect(Limits(30), _nobody).counts == {"unfinished": 1}  # moto's are of 2010
        later = time.time() + 40 * DAY
        removed = collect(Limits(30), _nobody, delete=True, clock=lambda: later)
        assert removed.counts == {"results": 1, "unfinished": 1}
        assert not store.backend.exists(_key(orphan))
        assert not client.list_multipart_uploads(Bucket="pictures").get("Uploads")
        assert client.get_object(Bucket="pictures", Key="elsewhere/outputs/ab/x")
        del begun
    del volume

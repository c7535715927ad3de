from fractions import Fraction

import numpy as np
import pytest

from safelight.errors import MissingFileError
from safelight.provenance.embed import video_tags
from safelight.provenance.manifest import ManifestUnreadableError, keep_manifest
from safelight.provenance.record import FileRecord
from safelight.provenance.replay import (
    compare,
    find_run,
    version_differences,
)
from safelight.provenance.surroundings import ONE_OF_MANY
from tests.media.clips import write_video


def test_a_run_is_found_from_what_it_made(store, manifest, entry, kept, tmp_path):
    run = manifest(entry("generate", kept()))
    keep_manifest(store, run)
    copy = tmp_path / "fox.png"
    copy.write_bytes(store.read(kept()))
    for location in (copy, run.key, run.flow_run_id):
        again = find_run(location)
        assert (again.flow, again.parameters) == ("photoreal_portrait_v1", run.parameters)
        assert again.notes == ()


def test_a_picture_that_was_drawn_with_others_says_that_it_is_drawn_alone(
    store, manifest, entry, kept
):
    noted = entry("generate", kept()).model_copy(
        update={"notes": ("something else", f"{ONE_OF_MANY}3 of a batch of 8")}
    )
    keep_manifest(store, manifest(noted))
    assert find_run(manifest().flow_run_id).notes == (
        f"{noted.name} was drawn as number 3 of a batch of 8, and is drawn alone now: the last "
        "bits may differ",
    )


def test_inputs_come_from_the_store_not_from_where_they_lay(store, manifest, kept):
    photo = kept()
    keep_manifest(
        store,
        manifest(
            parameters={
                "image": "/home/someone/gone.jpg",
                "call_input": {"image": "gone.jpg", "steps": 3},
                "overrides": {"image": {"steps": 3}},
            },
            inputs={"image": photo},
        ),
    )
    assert find_run(manifest().flow_run_id).parameters == {
        "image": photo.uri,
        "call_input": {"image": photo.uri, "steps": 3},
        "overrides": {"image": {"steps": 3}},
    }


def test_inputs_in_a_list_come_from_the_store_each_in_its_place(store, manifest, kept):
    first, second = kept(1), kept(2)
    inputs = {"pictures.0": first, "pictures.1": second, "image.0": second}
    given = {"pictures": ["a.png", "b.png"], "call_input": {"image": ["b.png"]}, "tags": ["x"]}
    keep_manifest(store, manifest(parameters=given, inputs=inputs))
    assert find_run(manifest().flow_run_id).parameters == {
        "pictures": [first.uri, second.uri],
        "call_input": {"image": [second.uri]},
        "tags": ["x"],
    }


def test_parameters_that_had_another_name_before_are_found_by_that_of_now(store, manifest):
    keep_manifest(store, manifest(parameters={"prompt": "a cat", "consent": True}))
    again = find_run(manifest().flow_run_id).parameters
    assert again == {"prompt": "a cat", "consent_given": True}


def test_an_input_that_is_gone_is_named(store, manifest, kept):
    photo = kept()
    key = keep_manifest(store, manifest(inputs={"image": photo}))
    store.backend.delete(photo.uri.removeprefix("store:"))
    with pytest.raises(MissingFileError, match=f"input image .*{photo.sha256}"):
        find_run(key)


def test_other_versions_and_devices_are_noted(store, manifest):
    then = manifest(device_class="cuda", versions={**manifest().versions, "torch": "1.0"})
    notes = find_run(keep_manifest(store, then), device_class="cpu").notes
    assert len(notes) == 2
    assert notes[0].startswith("torch was 1.0, is ")
    assert notes[1].startswith("the run used cuda, this machine cpu")


def test_version_differences_name_both_sides():
    found = version_differences({"av": "1", "torch": "2"}, {"torch": "2", "ncnn": "3"})
    assert found == ("av was 1, is not installed", "ncnn was not installed, is 3")


def test_an_unreadable_manifest_is_refused(volume, tmp_path):
    path = tmp_path / "m.json"
    path.write_text("{}")
    with pytest.raises(ManifestUnreadableError):
        find_run(path)


@pytest.mark.parametrize("name", ["os.path", "../outside", "a b", "", "x:y", "\x1b[31m"])
def test_a_manifest_cannot_name_code_to_import(store, manifest, name):
    key = keep_manifest(store, manifest().model_copy(update={"flow": name}))
    with pytest.raises(ManifestUnreadableError):
        find_run(key)


def test_equal_runs_are_identical(manifest, entry, kept):
    one = manifest(entry("generate", kept()), entry("grade", kept(5), kept(6)))
    # branches may finish in another order
    two = manifest(entry("grade", kept(5), kept(6)), entry("generate", kept()), run=2)
    found = compare(one, two)
    assert found.identical
    assert found.max_difference == 0
    assert [(item.stage, item.position) for item in found.artifacts] == [
        ("generate", 0),
        ("grade", 0),
        ("grade", 1),
    ]


def test_a_difference_is_measured_in_levels(manifest, entry, kept):
    one = manifest(entry("generate", kept()), entry("grade", kept(5)))
    two = manifest(entry("generate", kept()), entry("grade", kept(8)), run=2, device_class="cuda")
    found = compare(one, two)
    assert not found.identical
    assert not found.same_device_class
    assert [item.equal for item in found.artifacts] == [True, False]
    assert [item.max_difference for item in found.artifacts] == [0, 3]
    assert found.max_difference == 3
    assert found.notes == ("device was cpu (test), is cuda (test)",)


def test_what_cannot_be_measured_says_why(store, manifest, entry, kept):
    gone = kept(9)
    store.backend.delete(gone.uri.removeprefix("store:"))
    one = manifest(entry("a", kept(), kept(1)), entry("b", kept(2)), entry("c", kept(3)))
    two = manifest(entry("a", kept()), entry("b", kept(2, side=16)), entry("c", gone), run=2)
    found = compare(one, two)
    assert [(item.max_difference, item.note) for item in found.artifacts[:3]] == [
        (0, ""),
        (None, "only the first run made it"),
        (None, "32x32 and 16x16 px"),
    ]
    assert found.artifacts[3].note.startswith("nothing is stored")
    assert found.max_difference is None
    assert not found.identical


def test_two_runs_that_made_nothing_are_not_called_identical(manifest):
    assert not compare(manifest(), manifest(run=2)).identical


@pytest.fixture
def clip(store, tmp_path):
    def make(frames: int, level: int):
        path = tmp_path / f"{frames}-{level}.mp4"
        record = FileRecord(stage="interpolate", parameters={"level": level})
        pixels = np.full((32, 48, 3), 100, np.uint8)
        stills = [pixels] * (frames - 1) + [pixels + np.uint8(level)]
        info = write_video(path, stills, Fraction(24), video_tags(record))
        return store.put(path, "video/mp4", width=48, height=32, frames=info.frames, fps=24.0)

    return make


def test_videos_are_compared_frame_by_frame(manifest, entry, clip):
    one = manifest(entry("interpolate", clip(6, 0)))
    other = compare(one, manifest(entry("interpolate", clip(6, 40)), run=2))
    assert 35 <= (other.max_difference or 0) <= 45
    longer = compare(one, manifest(entry("interpolate", clip(7, 0)), run=2))
    assert longer.artifacts[0].note == "6 and 7 frames"

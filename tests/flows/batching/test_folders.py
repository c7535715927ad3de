"""Folders of pictures and clips: what becomes a request, with which prompt, and what does not."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import JsonValue

from flows.batching.gathering import FolderRequests, gather_given, gather_local, media_field
from flows.batching.reading import members
from flows.batching.reading.files import read_file
from flows.batching.reading.folder_members import folder_members
from flows.batching.reading.members import natural
from flows.batching.requests import find_target
from safelight.errors import ForbiddenPathError, PipelineError
from safelight.store.artifact import MediaKind
from safelight.store.inputs import allowed_folder, find_stored

pytestmark = pytest.mark.usefixtures("volume")
SHARED: dict[str, JsonValue] = {"prompt": "for all"}


def picture(path: Path, shade: int = 90, pnginfo: PngInfo | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (shade, 40, 40)).save(path, pnginfo=pnginfo)
    return path


def clip(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as made:
        stream = made.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for shade in (10, 90, 200):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), shade, np.uint8))
            made.mux(stream.encode(frame))
        made.mux(stream.encode())
    return path


def asked(
    folder: Path,
    flow: str = "transform",
    shared: Mapping[str, JsonValue] = SHARED,
    *,
    read_prompts: bool = False,
    keep: bool = False,
) -> FolderRequests:
    found = gather_local(folder, flow, shared, sheet=None, read_prompts=read_prompts, keep=keep)
    assert found is not None
    return found


def prompts(found: FolderRequests) -> dict[str, JsonValue]:
    return {each.where: each.parameters["prompt"] for each in found.requests}


def refused(
    folder: Path,
    flow: str = "transform",
    shared: Mapping[str, JsonValue] = SHARED,
    *,
    read_prompts: bool = False,
    keep: bool = False,
) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        asked(folder, flow, shared, read_prompts=read_prompts, keep=keep)
    assert caught.value.remedy
    return caught.value


def test_files_are_in_the_order_in_which_people_count(tmp_path: Path):
    names = ["1.png", "2.png", "10.png", "B.png", "c.png", "day 2/1.png", "day 10/1.png"]
    for name in reversed(names):
        picture(tmp_path / name)
    assert [each.where for each in asked(tmp_path).requests] == names


def test_the_order_is_one_for_all_names():
    odd = ["", "a", "A", "1", "01", "1a", "a1", "a/1", "1/a", "٣", "²", "9" * 9000, "a//b", "ä"]
    assert len({natural(name) for name in odd}) == len(odd)
    assert sorted(odd, key=natural) == sorted(reversed(odd), key=natural)


def test_pictures_are_kept_by_content_and_named_by_their_path(tmp_path: Path, volume: Path):
    picture(tmp_path / "a" / "one.png")
    picture(tmp_path / "b" / "two.jpeg", 120)
    before = asked(tmp_path, "enhance", {})
    assert not list(volume.rglob("*.png"))
    assert before.lines == b""
    found = asked(tmp_path, "enhance", {}, keep=True)
    stored = volume / "uploads" / "requests.jsonl"
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_bytes(found.lines)
    rows = read_file(str(stored), ("image", "seed"))
    assert [row.where for row in rows] == ["a/one.png", "b/two.jpeg"]
    for row in rows:
        ref = find_stored(str(row.values["image"]), ("image",))
        content = (volume / ref.uri.removeprefix("store:")).read_bytes()
        assert content == (tmp_path / row.where).read_bytes()


def test_a_prompt_comes_from_the_table_then_the_text_then_the_picture_then_all(tmp_path: Path):
    told = PngInfo()
    told.add_text("parameters", "inside\nNegative prompt: blur\nSteps: 20, Seed: 1, Size: 16x16")
    for name in ("all.png", "text.png", "table.png", "empty.png"):
        picture(tmp_path / name, pnginfo=told if name != "all.png" else None)
    (tmp_path / "text.txt").write_text("\ufeffa cat, sitting, München\n")
    (tmp_path / "table.txt").write_text("not taken")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "metadata.csv").write_text("file_name,text,steps\ntable.png,from the table,3\n")
    found = asked(tmp_path)
    assert prompts(found) == {
        "all.png": "for all",
        "empty.png": "for all",
        "table.png": "from the table",
        "text.png": "a cat, sitting, München",
    }
    assert [str(each) for each in found.left_aside] == ["empty.txt: an empty text"]
    found = asked(tmp_path, read_prompts=True)
    assert prompts(found)["empty.png"] == "inside"
    assert prompts(found)["all.png"] == "for all"
    of = {each.where: each.parameters for each in found.requests}
    assert of["empty.png"]["negative_prompt"] == "blur"
    assert "negative_prompt" not in of["text.png"]
    assert of["table.png"]["steps"] == 3
    (tmp_path / "metadata.csv").write_text("file_name,steps\ntable.png,3\n")
    (tmp_path / "table.txt").unlink()
    assert prompts(asked(tmp_path))["table.png"] == "for all"
    assert prompts(asked(tmp_path, read_prompts=True))["table.png"] == "inside"


def test_values_of_a_table_reach_the_run_with_their_types(tmp_path: Path, volume: Path):
    picture(tmp_path / "sub" / "a.png")
    row = 'a.png,x,4,"[{""name"": ""ink"", ""weight"": 0.5}]"'
    (tmp_path / "sub" / "metadata.csv").write_text(f"file_name,prompt,steps,loras\n{row}\n")
    (line,) = asked(tmp_path, keep=True).lines.decode().splitlines()
    given = json.loads(line)
    assert given.pop("image").startswith("store:uploads/")
    assert given == {
        "file_name": "sub/a.png",
        "prompt": "x",
        "steps": 4,
        "loras": [{"name": "ink", "weight": 0.5}],
    }


def test_a_table_of_json_lines_names_pictures_of_subfolders(tmp_path: Path):
    picture(tmp_path / "train" / "a.png")
    lines = [{"file_name": "train/a.png", "text": "a heart", "strength": 0.4}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (request,) = asked(tmp_path, shared={}).requests
    assert (request.parameters["prompt"], request.parameters["strength"]) == ("a heart", 0.4)


TABLES = {
    "missing": ("file_name,prompt\nb.png,x\n", "FILE_NOT_FOUND", "metadata.csv: line 2 names"),
    "outside": ("file_name,prompt\n../a.png,x\n", "FILE_NOT_FOUND", "'../a.png'"),
    "twice": ("file_name,prompt\na.png,x\na.png,y\n", "CONTRACT_MISMATCH", "line 3 names a.png"),
    "no name": ("file_name,prompt\n,x\n", "MISSING_REQUIRED_FIELD", "line 2 has no file_name"),
    "no column": ("prompt,steps\nx,3\n", "MISSING_REQUIRED_FIELD", "line 2 has no file_name"),
    "unknown": ("file_name,promt\na.png,x\n", "CONTRACT_MISMATCH", "did you mean prompt"),
    "two captions": ("file_name,text,prompt\na.png,x,y\n", "CONTRACT_MISMATCH", "text and prompt"),
    "the picture": ("file_name,image\na.png,b.png\n", "CONTRACT_MISMATCH", "'image'"),
    "a value": ("file_name,steps\na.png,many\n", "INVALID_FIELD_VALUE", "a.png: transform: field"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_does_not_fit_the_folder_is_refused(tmp_path: Path, case: str):
    picture(tmp_path / "a.png")
    table, code, words = TABLES[case]
    (tmp_path / "metadata.csv").write_text(table)
    error = refused(tmp_path)
    assert (error.code, words in error.problem) == (code, True), error.problem


def test_what_is_no_picture_is_named_with_its_reason(tmp_path: Path):
    picture(tmp_path / "photo.png").rename(tmp_path / "photo")
    clip(tmp_path / "clip.mp4")
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "lonely.txt").write_text("x")
    (tmp_path / "photo.txt").write_text("caption")
    for hidden in ("Thumbs.db", ".DS_Store", "__MACOSX/._photo", ".git/objects/a.png"):
        (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / hidden).write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.png")
    found = asked(tmp_path, "enhance", {})
    assert [each.where for each in found.requests] == ["photo"]
    assert [str(each) for each in found.left_aside] == [
        ".DS_Store: hidden",
        "clip.mp4: a video; enhance takes a picture",
        "lonely.txt: a text beside no picture of its name",
        "notes.md: no picture or video",
        "photo.txt: a text; enhance takes no prompt",
        "pipe.png: no plain file",
        "Thumbs.db: of the operating system",
        ".git/: hidden",
        "__MACOSX/: of the operating system",
    ]


def test_clips_are_taken_by_flows_of_videos(tmp_path: Path, volume: Path):
    clip(tmp_path / "a.mp4")
    clip(tmp_path / "b.mkv").rename(tmp_path / "b.bin")
    frames = [Image.new("L", (16, 16), shade) for shade in (0, 200)]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    picture(tmp_path / "d.png")
    found = asked(tmp_path, "interpolate", {"target_fps": 24}, keep=True)
    assert [each.where for each in found.requests] == ["a.mp4", "b.bin", "c.gif"]
    assert [each.name for each in found.left_aside] == ["d.png"]
    types = [
        find_stored(json.loads(line)["video"], ("video",)).media_type
        for line in found.lines.splitlines()
    ]
    assert types == ["video/mp4", "video/x-matroska", "video/x-matroska"]


def test_links_are_followed_inside_the_folder_alone(tmp_path: Path):
    folder = tmp_path / "folder"
    picture(folder / "a.png")
    picture(tmp_path / "secret.png")
    (folder / "inside.png").symlink_to("a.png")
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "round").symlink_to(folder)
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "out.txt").symlink_to("/etc/passwd")
    found = asked(folder)
    assert [each.where for each in found.requests] == ["a.png", "inside.png"]
    assert [each.name for each in found.left_aside] == [
        "circle.png", "out.png", "out.txt", "round"
    ]  # fmt: skip
    assert {each.why for each in found.left_aside} == {
        "a link that leads to no file of this folder"
    }


def test_a_link_in_the_place_of_the_folder_is_not_followed(tmp_path: Path, volume: Path):
    picture(volume / "inbox" / "a.png")
    picture(tmp_path / "elsewhere" / "a.png", 7)
    inbox = (volume / "inbox").resolve()
    (found,) = folder_members(inbox, volume.resolve()).files
    inbox.rename(volume / "away")
    inbox.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ForbiddenPathError), found.opened():
        pass
    assert folder_members(inbox.parent / "away", volume.resolve()).files


def test_a_run_opens_folders_from_the_root_on(volume: Path, monkeypatch: pytest.MonkeyPatch):
    picture(volume / "inbox" / "a.png")
    picture(volume.parent / "elsewhere" / "a.png", 7)

    def swapped(folder: Path) -> Path | None:
        found = allowed_folder(str(folder))
        (volume / "inbox").rename(volume / "away")
        (volume / "inbox").symlink_to(volume.parent / "elsewhere")
        return found

    monkeypatch.setattr("flows.batching.gathering.allowed_folder", swapped)
    with pytest.raises(PipelineError):
        gather_given("inbox", find_target("enhance"), {}, sheet=None, read_prompts=False)


def test_a_folder_with_nothing_for_the_flow_is_refused(tmp_path: Path):
    error = refused(tmp_path)
    assert error.code == "INVALID_FIELD_VALUE"
    (tmp_path / "notes.md").write_text("x")
    picture(tmp_path / "a.png")
    error = refused(tmp_path, "interpolate", shared={})
    assert "holds no video for interpolate" in error.problem
    assert "notes.md" in error.problem


def test_pictures_that_are_none_are_refused_together(tmp_path: Path):
    picture(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    for keep in (False, True):
        error = refused(tmp_path, keep=keep)
        assert "empty.png holds nothing (0 bytes)" in error.problem
        assert "also refused: page.jpg" in error.problem
    for name in ("empty.png", "page.jpg"):
        (tmp_path / name).unlink()
    whole = picture(tmp_path / "sub" / "half.png").read_bytes()
    (tmp_path / "sub" / "half.png").write_bytes(whole[:50])
    assert len(asked(tmp_path).requests) == 2
    error = refused(tmp_path, keep=True)
    assert error.problem.startswith("sub/half.png: ")


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        ("inpaint", "takes image, mask"),
        ("blend", "takes pictures"),
        ("generate", "takes no picture"),
        ("pipeline", "takes no picture"),
        ("cinematic_portrait_v1", "takes no picture"),
    ],
)
def test_flows_without_one_field_for_files_are_refused(tmp_path: Path, flow: str, words: str):
    picture(tmp_path / "a.png")
    error = refused(tmp_path, flow, shared={})
    assert error.code == "CONTRACT_MISMATCH"
    assert words in error.problem


@pytest.mark.parametrize(
    ("flow", "name", "kind"),
    [
        ("transform", "image", "image"),
        ("image_to_video_v1", "image", "image"),
        ("interpolate", "video", "video"),
        ("color_grade_film_grain_v1", "video", "video"),
    ],
)
def test_the_field_is_told_from_the_signature(flow: str, name: str, kind: MediaKind):
    found = media_field(find_target(flow))
    assert (found.name, found.kind) == (name, kind)


def test_options_that_do_not_fit_a_folder_are_refused(tmp_path: Path):
    picture(tmp_path / "a.png")
    assert refused(tmp_path, "enhance", shared={}, read_prompts=True).code == "CONTRACT_MISMATCH"
    assert refused(tmp_path, "enhance", shared={"image": "b.png"}).code == "CONTRACT_MISMATCH"
    for file, sheet, read_prompts in ((tmp_path, "one", False), (Path(__file__), None, True)):
        with pytest.raises(PipelineError) as caught:
            gather_local(
                file, "transform", SHARED, sheet=sheet, read_prompts=read_prompts, keep=False
            )
        assert caught.value.code == "INVALID_FIELD_VALUE"


def test_too_many_files_and_unreadable_folders_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number in range(4):
        picture(tmp_path / f"{number}.png")
    monkeypatch.setattr(members, "MOST_FILES", 3)
    assert "more than 3 files" in refused(tmp_path).problem
    monkeypatch.setattr("flows.batching.requests.MOST_REQUESTS", 3)
    monkeypatch.setattr(members, "MOST_FILES", 9)
    assert "4 requests, expected 1 to 3" in refused(tmp_path).problem


def test_names_that_no_text_can_hold_stay_apart(tmp_path: Path):
    for name in (b"caf\xe9.png", b"caf\xc3\xa9.png", b"two\nlines.png"):
        picture(tmp_path / "made.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    found = asked(tmp_path, "enhance", {}, keep=True)
    assert {each.where for each in found.requests} == {
        "café.png", "caf\\xe9.png", "two\\nlines.png"
    }  # fmt: skip
    assert all(str(each.where).isprintable() for each in found.requests)
    assert len(found.lines.splitlines()) == 3


def test_a_caption_that_is_no_text_is_refused_by_its_name(tmp_path: Path):
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    assert refused(tmp_path).problem.startswith("a.txt: line 1: byte 0xe9")
    (tmp_path / "a.txt").write_bytes(b"x" * 2**21)
    assert "a.txt has more than" in refused(tmp_path).problem
    (tmp_path / "a.txt").write_bytes(b"x" * 3000)
    assert refused(tmp_path).problem.startswith("a.png: transform: field prompt")


def test_a_run_reads_folders_where_inputs_may_come_from(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
):
    target = find_target("enhance")
    outside = tmp_path / "outside"
    picture(outside / "a.png")
    picture(volume / "inbox" / "b.png")
    (volume / "inbox" / "notes.md").write_text("x")
    (volume / "inbox" / "leak.png").symlink_to(outside / "a.png")
    (volume / "way_out").symlink_to(outside)
    for location in (str(outside), "../outside", "way_out"):
        with pytest.raises(PipelineError) as caught:
            gather_given(location, target, {}, sheet=None, read_prompts=False)
        assert caught.value.code == "PERMISSION_DENIED"
    given = gather_given("inbox", target, {}, sheet=None, read_prompts=False)
    assert given is not None
    rows, left_aside = given
    assert [row.where for row in rows] == ["b.png"]
    assert str(rows[0].values["image"]).startswith("store:uploads/")
    assert [each.name for each in left_aside] == ["leak.png", "notes.md"]
    monkeypatch.setenv("SAFELIGHT_INPUT_ROOTS", str(outside))
    from safelight.settings import reload_settings

    reload_settings()
    given = gather_given(str(outside), target, {}, sheet=None, read_prompts=False)
    assert given is not None
    assert given[0][0].where == "a.png"

"""The comfy stage, with a server that answers as a real ComfyUI did."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from safelight.engines.graphs import read_graph
from safelight.errors import PipelineError
from safelight.media.images import decode_image
from safelight.params import checked
from safelight.provenance.containers import png_texts
from safelight.provenance.embed import read_record
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef
from safelight.store.inputs import keep_media
from safelight.store.store import current_store
from tasks.base.ingest import ingest
from tasks.base.stage import cache_key
from tasks.comfy import ComfyParams, comfy
from tests.engines.comfy.comfy_server import GRAPH, RECORDED, Comfy, comfy_up


@pytest.fixture
def there(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Comfy]:
    """A server that the settings name, and two workflows in the volume."""
    keep("draw", GRAPH)
    keep("redraw", RECORDED["image_graph"])
    held = Comfy()
    with comfy_up(held) as url:
        monkeypatch.setenv("SAFELIGHT_COMFY_URL", url)
        settings.cache_clear()
        yield held


def keep(name: str, graph: object) -> Path:
    folder = settings().volume_root / "workflows"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    file.write_text(graph if isinstance(graph, str) else json.dumps(graph))
    return file


def params(workflow: str = "draw", **fields: Any) -> ComfyParams:
    return checked(ComfyParams, "comfy", workflow=workflow, **fields)


def texts_of(ref: ArtifactRef) -> dict[str, str]:
    return png_texts(current_store().fetch(ref))


def test_what_it_saved_is_an_artifact_that_opens_as_its_graph(there: Comfy):
    (made,) = comfy.fn(None, params(inputs={"KSampler.seed": 11, "Positive.text": "a tower"}))
    ((name, saved),) = there.files.items()
    assert name == "Safelight_00000_.png"
    expected = np.asarray(Image.open(io.BytesIO(saved)))
    assert np.array_equal(decode_image(current_store().read(made)), expected)
    graph = read_graph(texts_of(made)["prompt"], "saved")
    assert graph["3"].inputs["seed"] == 11
    assert graph["6"].inputs["text"] == "a tower"
    assert graph["6"].title == "Positive"
    record = read_record(current_store().fetch(made))
    assert record is not None
    assert (record.stage, record.engine_id) == ("comfy", "local_comfy")
    assert record.engine_version.startswith("0.3.64+")
    kept = record.parameters["workflow"]
    assert isinstance(kept, str)
    assert kept.startswith("store:uploads/")
    (again,) = comfy.fn(None, params(kept, inputs={"KSampler.seed": 11, "6.text": "a tower"}))
    assert np.array_equal(decode_image(current_store().read(again)), expected)


def test_the_text_of_the_editors_format_stays_in_the_file(there: Comfy):
    graph = '{"nodes": [], "links": [], "note": "é"}'
    drawn = there.picture

    def with_workflow(prompt: dict[str, Any]) -> bytes:
        from PIL.PngImagePlugin import PngInfo

        texts, file = PngInfo(), io.BytesIO()
        texts.add_text("workflow", graph)
        Image.open(io.BytesIO(drawn(prompt))).save(file, "PNG", pnginfo=texts)
        return file.getvalue()

    there.picture = with_workflow
    (made,) = comfy.fn(None, params())
    assert texts_of(made)["workflow"] == graph


def test_a_picture_goes_into_the_node_that_loads_one(there: Comfy, photo: np.ndarray):
    file = settings().volume_root / "uploads" / "part.jpg"
    file.parent.mkdir()
    Image.fromarray(photo[:40, :56]).save(file, quality=90)
    picture = ingest(str(file), ("image",))
    (made,) = comfy.fn(picture, params("redraw"))
    ((name, sent),) = there.uploads.items()
    shown = decode_image(current_store().read(picture))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(sent))), shown)
    assert json.loads(texts_of(made)["prompt"])["10"]["inputs"]["image"] == name
    record = read_record(current_store().fetch(made))
    assert record is not None
    assert record.sources == (picture.sha256,)
    with pytest.raises(PipelineError, match="no node LoadImage") as refused:
        comfy.fn(picture, params("draw"))
    assert refused.value.code == "CONTRACT_MISMATCH"
    two = {**RECORDED["image_graph"], "12": RECORDED["image_graph"]["10"]}
    keep("two", two)
    with pytest.raises(PipelineError, match=r"10\.image, 12\.image"):
        comfy.fn(picture, params("two"))
    comfy.fn(picture, params("two", picture_input="12.image"))
    sent_last = list(there.history.values())[-1]["prompt"][2]
    assert sent_last["12"]["inputs"]["image"] == name
    assert sent_last["10"]["inputs"]["image"] == "example.png"


def test_the_key_is_over_graph_values_and_version(there: Comfy):
    def key(**fields: Any) -> str:
        return cache_key(comfy, [None, params(**fields)])

    first = key()
    assert key() == first
    assert key(inputs={"3.seed": 6}) != first
    keep("same", GRAPH)
    assert key(workflow="same") == first  # its name says nothing of what it makes
    keep("draw", {**GRAPH, "5": {**GRAPH["5"], "inputs": {**GRAPH["5"]["inputs"], "width": 128}}})
    assert key() != first
    keep("draw", GRAPH)
    there.version = "0.4.0"
    assert key() != first
    assert not [asked for asked in there.asked if asked[0] == "POST"]


REFUSED = {
    "another folder": ("../secret", None, "INVALID_FIELD_VALUE", "name of a file"),
    "an absolute path": ("/etc/passwd", None, "INVALID_FIELD_VALUE", "name of a file"),
    "a hidden file": (".secret", None, "INVALID_FIELD_VALUE", "name of a file"),
    "another kind of link": (
        "store:outputs/ab/x.json",
        None,
        "INVALID_FIELD_VALUE",
        "no link of a kept workflow",
    ),
    "no such file": ("portrait", None, "FILE_NOT_FOUND", "there are draw, redraw"),
    "no JSON": ("bad", "{", "INVALID_FIELD_VALUE", "is no JSON"),
    "the editor's format": (
        "bad",
        {"nodes": [{"id": 1}], "links": []},
        "CONTRACT_MISMATCH",
        "saved for the editor",
    ),
    "no nodes": ("bad", {}, "CONTRACT_MISMATCH", "has no nodes"),
    "no node": ("bad", {"1": {"inputs": {}}}, "CONTRACT_MISMATCH", "'1' is no node"),
    "too deep": ("bad", "[" * 100_000, "INVALID_FIELD_VALUE", "is no JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_are_no_workflow_are_refused(there: Comfy, case: str):
    workflow, content, code, said = REFUSED[case]
    if content is not None:
        keep("bad", content)
    with pytest.raises(PipelineError, match=said) as refused:
        comfy.fn(None, params(workflow))
    assert refused.value.code == code
    assert there.submitted == []


def test_a_link_out_of_the_folder_is_refused(there: Comfy):
    outside = settings().volume_root / "outside.json"
    outside.write_text(json.dumps(GRAPH))
    (settings().volume_root / "workflows" / "led.json").symlink_to(outside)
    with pytest.raises(PipelineError) as refused:
        comfy.fn(None, params("led"))
    assert refused.value.code == "PERMISSION_DENIED"


def test_a_title_that_two_nodes_have_names_none(there: Comfy):
    with pytest.raises(PipelineError, match="any of the nodes 6, 7") as refused:
        comfy.fn(None, params(inputs={"CLIPTextEncode.text": "a tower"}))
    assert refused.value.code == "CONTRACT_MISMATCH"
    assert "6.text" in refused.value.remedy


def test_without_a_server_the_stage_says_what_to_set(volume: Path):
    keep("draw", GRAPH)
    with pytest.raises(PipelineError, match="no ComfyUI is named") as refused:
        comfy.identity(params())
    assert refused.value.code == "DEPENDENCY_MISSING"


def clip(**tags: str) -> bytes:
    """Three frames in an MP4 with the texts that ComfyUI writes."""
    file = io.BytesIO()
    options = {"movflags": "use_metadata_tags"}
    with av.open(file, "w", format="mp4", options=options) as container:
        container.metadata.update(tags)
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in (20, 120, 220):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def packets(data: bytes) -> list[bytes]:
    with av.open(io.BytesIO(data)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_videos_go_in_and_come_out_as_they_are(there: Comfy):
    graph = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "example.mp4"}},
        "2": {
            "class_type": "SaveVideo",
            "inputs": {
                "video": ["1", 0],
                "filename_prefix": "a",
                "format": "auto",
                "codec": "auto",
            },
        },
    }
    keep("again", graph)
    there.clip = clip(prompt=json.dumps(graph), workflow='{"nodes": []}')
    file = settings().volume_root / "uploads" / "in.mp4"
    file.parent.mkdir()
    file.write_bytes(clip())
    source = ingest(str(file), ("video",))
    (made,) = comfy.fn(source, params("again", makes="video"))
    ((name, sent),) = there.uploads.items()
    assert sent == file.read_bytes()
    assert there.history[there.submitted[-1]]["prompt"][2]["1"]["inputs"]["file"] == name
    assert (made.media_type, made.width, made.height, made.frames) == ("video/mp4", 64, 48, 3)
    kept = current_store().fetch(made)
    assert packets(kept.read_bytes()) == packets(there.clip)
    with av.open(str(kept)) as container:
        assert json.loads(container.metadata["prompt"]) == graph
        assert container.metadata["workflow"] == '{"nodes": []}'
    record = read_record(kept)
    assert record is not None
    assert (record.stage, record.sources) == ("comfy", (source.sha256,))
    with pytest.raises(PipelineError, match=r"saved no picture, but clip_00001_\.mp4"):
        comfy.fn(source, params("again"))
    with pytest.raises(PipelineError, match=r"no node for '3\.image'"):
        comfy.fn(None, params("again", makes="video", media={"3.image": str(file)}))


@pytest.mark.parametrize(
    ("container", "codec", "media_type"),
    [
        ("flac", "flac", "audio/flac"),
        ("mp3", "libmp3lame", "audio/mpeg"),
        ("ogg", "libopus", "audio/ogg"),
        ("wav", "pcm_s16le", "audio/wav"),
    ],
)
def test_sound_keeps_its_samples_and_gets_a_record(
    volume: Path, tmp_path: Path, container: str, codec: str, media_type: str
):
    from safelight.media.retagging import retagged
    from safelight.provenance.embed import video_tags
    from safelight.provenance.record import FileRecord

    source = tmp_path / f"sound.{container}"
    with av.open(str(source), "w", format=container) as written:
        stream = written.add_stream(codec, rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(
            np.random.default_rng(1).uniform(-0.1, 0.1, (2, 48000)).astype(np.float32), "fltp"
        )
        frame.sample_rate = 48000
        size = stream.codec_context.frame_size or 1024
        cut = av.AudioResampler(stream.codec_context.format, "stereo", 48000, frame_size=size)
        for piece in (*cut.resample(frame), *cut.resample(None)):
            written.mux(stream.encode(piece))
        written.mux(stream.encode(None))
    kept = keep_media(source, ("audio",))
    assert kept.media_type == media_type
    record = FileRecord(
        stage="comfy",
        parameters={},
        sources=(),
        origin="creates",
        engine_id="local_comfy",
        engine_version="1",
        weights=(),
        history=(),
    )
    target = tmp_path / f"tagged{kept.extension}"
    retagged(source, target, video_tags(record))
    assert sounds(target) == sounds(source)
    assert read_record(target) == record


def sounds(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray().tobytes() for frame in container.decode(audio=0)]

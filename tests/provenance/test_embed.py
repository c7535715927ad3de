import io
import json
import xml.dom.minidom
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from safelight.errors import InvalidFieldValueError, MissingFileError
from safelight.media.video.stream import FrameWriter
from safelight.provenance.embed import LOSSLESS, image_bytes, read_record, video_tags
from safelight.provenance.record import FileRecord
from safelight.provenance.xmp import SOURCE_TYPES, source_type

MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")
PROMPT = 'a "fox", <b>]]>&amp; in snow 😀\nsecond line'
DRAWN = FileRecord(
    stage="generate",
    parameters={
        "prompt": PROMPT,
        "negative_prompt": "blurry: yes, very",
        "steps": 20,
        "scheduler": "dpmpp_2m_karras",
        "guidance_scale": 7.5,
        "seed": 1,
        "width": 512,
        "height": 512,
        "model": "checkpoints/dream, v2.safetensors",
    },
    engine_id="diffusers",
    engine_version="0.42.1+1",
    weights=("0123456789abcdef" * 4,),
)
ENLARGED = FileRecord(
    stage="upscale", parameters={"upscale_factor": 2}, sources=("cd" * 32,), history=(DRAWN,)
)
PHOTO = FileRecord(stage="grade", parameters={"look": "warm"}, sources=("ab" * 32,))


@pytest.fixture(scope="module")
def pixels(photo):
    return np.ascontiguousarray(photo[100:164, 200:280])


def written(folder: Path, pixels, record, media_type) -> Path:
    path = folder / "picture"  # no extension: files are known by their content
    path.write_bytes(image_bytes(pixels, record, media_type))
    return path


def opened(pixels, record, media_type) -> Image.Image:
    image = Image.open(io.BytesIO(image_bytes(pixels, record, media_type)))
    image.load()
    return image


def packet_of(image: Image.Image) -> xml.dom.minidom.Element:
    return xml.dom.minidom.parseString(image.info["xmp"]).documentElement


def texts(packet: xml.dom.minidom.Element, name: str) -> list[str]:
    return ["".join(n.data for n in e.childNodes) for e in packet.getElementsByTagName(name)]


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@pytest.mark.parametrize("record", [DRAWN, ENLARGED, PHOTO], ids=lambda record: record.stage)
def test_record_comes_back(tmp_path, pixels, record, media_type):
    assert read_record(written(tmp_path, pixels, record, media_type)) == record


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_same_input_gives_the_same_bytes_and_another_record_others(pixels, media_type):
    once = image_bytes(pixels, ENLARGED, media_type)
    assert image_bytes(pixels, ENLARGED, media_type) == once
    assert image_bytes(pixels, PHOTO, media_type) != once


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_pixels_come_back(pixels, media_type):
    back = np.array(opened(pixels, ENLARGED, media_type))
    off = np.abs(back.astype(int) - pixels).max()
    if media_type in LOSSLESS:
        assert off == 0
    else:
        assert 0 < off <= 16


def test_jpeg_keeps_full_colour_resolution(pixels):
    image = opened(pixels, ENLARGED, "image/jpeg")
    assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
    direct = io.BytesIO()
    Image.fromarray(pixels).save(direct, "JPEG", quality=95)
    assert image.quantization == Image.open(direct).quantization


def test_a_text_longer_than_a_segment_of_jpeg_is_left_to_the_record(tmp_path, pixels):
    def comment_of(prompt: str) -> bytes | None:
        record = DRAWN.model_copy(update={"parameters": {**DRAWN.parameters, "prompt": prompt}})
        path = written(tmp_path, pixels, record, "image/jpeg")
        assert read_record(path) == record
        with Image.open(path) as image:
            return image.getexif().get_ifd(0x8769).get(0x9286)

    short, long = "x" * 30_000, "x" * 33_000  # two bytes a character
    assert short.encode("utf-16-be") in (comment_of(short) or b"")
    assert comment_of(long) is None


def test_png_is_tagged_srgb_and_the_others_carry_a_profile_without_a_date(pixels):
    assert opened(pixels, PHOTO, "image/png").info["srgb"] == 0
    for media_type in ("image/jpeg", "image/webp"):
        profile = opened(pixels, PHOTO, media_type).info["icc_profile"]
        assert profile[36:40] == b"acsp"
        assert profile[24:36] == bytes.fromhex("07d000010001000000000000")


def test_png_carries_the_parameters_text_of_automatic1111(pixels):
    text = opened(pixels, ENLARGED, "image/png").info["parameters"]
    assert text == (
        f"{PROMPT}\nNegative prompt: blurry: yes, very\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 1, "
        'Size: 512x512, Model hash: 0123456789, Model: "dream, v2", Version: Safelight 0.1.0'
    )


def test_latin_parameters_are_a_plain_text_chunk(pixels):
    plain = DRAWN.model_copy(update={"parameters": {**DRAWN.parameters, "prompt": "café"}})
    assert b"tEXtparameters\0caf\xe9\n" in image_bytes(pixels, plain, "image/png")


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/webp"])
def test_exif_comment_carries_the_same_text(pixels, media_type):
    wanted = opened(pixels, ENLARGED, "image/png").info["parameters"]
    exif = opened(pixels, ENLARGED, media_type).getexif()
    comment = exif.get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be") == wanted


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_a_photo_that_was_only_graded_has_no_parameters_text(pixels, media_type):
    image = opened(pixels, PHOTO, media_type)
    assert "parameters" not in image.info
    assert 0x9286 not in image.getexif().get_ifd(0x8769)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_another_parser_reads_the_xmp(pixels, media_type):
    packet = packet_of(opened(pixels, ENLARGED, media_type))
    assert texts(packet, "xmp:CreatorTool") == ["Safelight 0.1.0"]
    assert texts(packet, "Iptc4xmpExt:DigitalSourceType") == [
        "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    ]
    (description,) = packet.getElementsByTagName("dc:description")
    assert texts(description, "rdf:li") == [PROMPT]
    (history,) = packet.getElementsByTagName("xmpMM:History")
    assert [e.getAttribute("rdf:parseType") for e in history.getElementsByTagName("rdf:li")] == [
        "Resource",
        "Resource",
    ]
    assert texts(history, "stEvt:action") == ["created", "edited"]
    steps = [json.loads(text) for text in texts(history, "stEvt:parameters")]
    assert steps == [
        {"stage": "generate", **DRAWN.parameters},
        {"stage": "upscale", "upscale_factor": 2},
    ]


@pytest.mark.parametrize(
    ("origins", "kind"),
    [
        (["creates", "enhances"], "trainedAlgorithmicMedia"),
        (["enhances", "creates"], "trainedAlgorithmicMedia"),
        (["redraws"], "compositeWithTrainedAlgorithmicMedia"),
        (["enhances", "redraws", "edits"], "compositeWithTrainedAlgorithmicMedia"),
        (["enhances", "edits"], "algorithmicallyEnhanced"),
    ],
)
def test_source_type_says_what_models_did_to_the_pixels(tmp_path, pixels, origins, kind):
    *earlier, last = [
        FileRecord(stage="any", parameters={}, sources=("ab" * 32,), origin=origin)
        for origin in origins
    ]
    record = last.model_copy(update={"history": tuple(earlier)})
    assert source_type(record) == SOURCE_TYPES + kind
    kept = read_record(written(tmp_path, pixels, record, "image/png"))
    assert kept == record
    assert source_type(kept) == SOURCE_TYPES + kind


@pytest.mark.parametrize(
    ("known", "origin"),
    [
        ({"parameters": {"prompt": "a fox"}}, "creates"),
        ({"parameters": {"prompt": "a fox"}, "sources": ("ab" * 32,)}, "redraws"),
        ({"parameters": {"level": 1}, "sources": ("ab" * 32,)}, "enhances"),
    ],
)
def test_a_record_of_an_earlier_version_has_the_usual_origin_and_stays_the_same(known, origin):
    record = FileRecord(stage="any", **known)
    assert record.origin == origin
    assert "origin" not in record.model_dump()
    other = record.model_copy(update={"origin": "edits"})
    assert other.model_dump()["origin"] == "edits"


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_a_history_of_a_megabyte_fits(tmp_path, pixels, media_type):
    long = DRAWN.model_copy(update={"parameters": {"prompt": "tree 🌳 " * 20_000}})
    record = ENLARGED.model_copy(update={"history": (long, long)})
    path = written(tmp_path, pixels, record, media_type)
    assert read_record(path) == record
    assert np.array(Image.open(path)).shape == pixels.shape


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
)
hostile = st.one_of(
    st.text(),
    st.sampled_from(["]]>", "<!--", '"', "\r\n", "\0", "\x1b[0m", "\ufffe", "&lt;", "Steps: 1, "]),
)
values = st.recursive(st.one_of(scalars, hostile), lambda inner: st.lists(inner, max_size=3))


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.lists(hostile, max_size=6).map("".join),
    parameters=st.dictionaries(hostile, values, max_size=4),
    media_type=st.sampled_from(MEDIA_TYPES),
)
def test_any_text_comes_back(tmp_path_factory, prompt, parameters, media_type):
    drawn = FileRecord(stage="generate", parameters={**parameters, "prompt": prompt})
    record = PHOTO.model_copy(update={"history": (drawn,)})
    pixels = np.zeros((2, 3, 3), np.uint8)
    path = written(tmp_path_factory.getbasetemp(), pixels, record, media_type)
    assert read_record(path) == record
    with Image.open(path) as image:
        assert packet_of(image).tagName == "x:xmpmeta"


def test_a_media_type_no_one_writes_is_refused(pixels):
    with pytest.raises(InvalidFieldValueError, match="image/gif"):
        image_bytes(pixels, PHOTO, "image/gif")


def test_a_side_webp_cannot_hold_is_refused():
    with pytest.raises(InvalidFieldValueError, match="1x16384 px"):
        image_bytes(np.zeros((16_384, 1, 3), np.uint8), PHOTO, "image/webp")


def foreign_files(pixels) -> dict[str, bytes]:
    def saved(kind: str, **options) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind, **options)
        return buffer.getvalue()

    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    return {
        "plain png": saved("PNG"),
        "plain jpeg": saved("JPEG"),
        "plain webp": saved("WEBP"),
        "gif": saved("GIF"),
        "entities": saved("JPEG", xmp=bomb),
        "broken xml": saved("WEBP", xmp=b"<x:xmpmeta"),
        "unknown encoding": saved("JPEG", xmp=b'<?xml version="1.0" encoding="none"?><x/>'),
        "text": b"hello",
        "empty": b"",
        "mp4 in name only": b"\0\0\0\x18ftypmp42" + bytes(40),
        "mkv in name only": b"\x1aE\xdf\xa3" + bytes(40),
        "jpeg start": b"\xff\xd8\xff\xe1\xff",
        "segment of no size": b"\xff\xd8\xff\xe1\0\0",
    }


def test_files_by_others_hold_no_record_and_raise_nothing(tmp_path, pixels):
    for name, data in foreign_files(pixels).items():
        path = tmp_path / "foreign"
        path.write_bytes(data)
        assert read_record(path) is None, name


def test_our_key_with_other_content_is_no_record(tmp_path, pixels):
    good = image_bytes(pixels, PHOTO, "image/png")
    path = tmp_path / "other.png"
    path.write_bytes(good.replace(b'"stage"', b'"stale"'))
    assert read_record(path) is None


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_truncated_files_raise_nothing(tmp_path, pixels, media_type):
    whole = image_bytes(pixels, ENLARGED, media_type)
    path = tmp_path / "part"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert read_record(path) in (None, ENLARGED)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), media_type=st.sampled_from(MEDIA_TYPES))
def test_flipped_bytes_raise_nothing(tmp_path_factory, data, media_type):
    whole = bytearray(image_bytes(np.zeros((2, 2, 3), np.uint8), PHOTO, media_type))
    for _ in range(4):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(whole)
    read_record(path)


def test_compressed_text_of_other_tools_is_read(tmp_path, pixels):
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_itxt("safelight", PHOTO.model_dump_json(), zip=True)
    Image.fromarray(pixels).save(tmp_path / "zip.png", pnginfo=text)
    assert read_record(tmp_path / "zip.png") == PHOTO


def test_a_simple_property_that_another_tool_made_an_attribute_is_read(tmp_path, pixels):
    from xml.sax.saxutils import quoteattr

    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        f'xmlns:s="urn:safelight:xmp/1.0/"><rdf:Description rdf:about="" '
        f"s:record={quoteattr(DRAWN.model_dump_json())}/></rdf:RDF></x:xmpmeta>"
    )
    Image.fromarray(pixels).save(tmp_path / "a.jpg", xmp=packet.encode())
    assert read_record(tmp_path / "a.jpg") == DRAWN


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(MissingFileError, match="no file at"):
        read_record(tmp_path / "none.png")


def test_video_tags_come_back(tmp_path, pixels):
    target = tmp_path / "clip.mp4"
    with FrameWriter(target, Fraction(24), video_tags(ENLARGED)) as writer:
        for _ in range(3):
            writer.add(pixels)
    assert read_record(target) == ENLARGED


@pytest.mark.parametrize("options", [{}, {"movflags": "use_metadata_tags"}, None])
def test_video_tags_come_back_from_any_writer(tmp_path, options):
    import av

    target = tmp_path / ("clip.mkv" if options is None else "clip.mp4")
    tags = video_tags(ENLARGED)
    with av.open(str(target), "w", options=options or {}) as container:
        container.metadata.update(tags)
        stream = container.add_stream("libx264", rate=24)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert read_record(target) == ENLARGED
    with av.open(str(target)) as container:
        found = {name.lower(): value for name, value in container.metadata.items()}
    assert found["title"] == 'a "fox", <b>]]>&amp; in snow 😀 second line'
    assert found["description"] == PROMPT
    assert json.loads(found["comment"])["stage"] == "upscale"
    if options != {}:  # plain MP4 has a fixed list of keys
        assert found["parameters"] == tags["parameters"]


def test_a_graded_video_says_so_without_a_title():
    tags = video_tags(PHOTO)
    assert set(tags) == {"comment", "software", "encoder", "digital_source_type"}
    assert tags["digital_source_type"] == SOURCE_TYPES + "algorithmicallyEnhanced"


def test_reading_pictures_does_not_load_a_video_library(tmp_path, pixels):
    import subprocess
    import sys

    path = written(tmp_path, pixels, PHOTO, "image/webp")
    program = (
        "import sys, pathlib; from safelight.provenance.embed import read_record;"
        f"assert read_record(pathlib.Path({str(path)!r})); assert 'av' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

"""The enhance stage: real pixels, the format kept, three levels of effort."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from safelight.errors import InvalidFieldValueError, InvalidMediaError
from safelight.media.images import decode_image
from safelight.provenance.embed import read_record
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.enhance import EnhanceParams, enhance

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}


def stored(pixels: np.ndarray, media_type: str, claimed: str | None = None) -> ArtifactRef:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, FORMATS[media_type])
    return current_store().put(buffer.getvalue(), claimed or media_type)


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((found.astype(float) - expected) ** 2)))


@pytest.mark.parametrize("media_type", sorted(FORMATS))
def test_keeps_the_format(volume: Path, photo: np.ndarray, media_type: str):
    picture = stored(photo[100:148, 200:264], media_type)
    better = enhance.fn(picture, EnhanceParams(quality_preset="low"))
    data = current_store().read(better)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == FORMATS[media_type]
        assert image.size == (128, 96) == (better.width, better.height)
    assert better.media_type == media_type
    assert better.extension == picture.extension
    record = read_record(current_store().fetch(better))
    assert record is not None
    assert record.parameters == {"quality_preset": "low", "texture": 1.0, "seed": 0}


def test_bytes_decide_what_a_picture_is(volume: Path, photo: np.ndarray):
    picture = stored(photo[100:148, 200:264], "image/jpeg", claimed="image/png")
    better = enhance.fn(picture, EnhanceParams(quality_preset="low"))
    assert better.media_type == "image/jpeg"


def test_each_preset_makes_real_detail(volume: Path, photo: np.ndarray):
    original = photo[80:176, 170:266]
    small = np.rint(original.reshape(48, 2, 48, 2, 3).mean(axis=(1, 3))).astype(np.uint8)
    picture = stored(small, "image/png")
    sizes: dict[str, tuple[int | None, int | None]] = {}
    results: set[str] = set()
    for quality in ("low", "medium", "high"):
        better = enhance.fn(picture, EnhanceParams(quality_preset=quality))
        sizes[quality] = (better.width, better.height)
        results.add(better.sha256)
        pixels = decode_image(current_store().read(better))
        factor = pixels.shape[0] // 48
        back = pixels.reshape(48, factor, 48, factor, 3).mean(axis=(1, 3))
        assert psnr(back, small) > 26
        if factor == 2:
            bicubic = np.asarray(Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC))
            crisp = [np.abs(np.diff(p.astype(float), axis=1)).mean() for p in (bicubic, pixels)]
            assert crisp[1] > crisp[0]
    assert sizes == {"low": (96, 96), "medium": (96, 96), "high": (192, 192)}
    assert len(results) == 3


def test_cleans_up_compression(volume: Path, photo: np.ndarray):
    clean = photo[20:84, 20:84]
    buffer = io.BytesIO()
    Image.fromarray(clean).save(buffer, "JPEG", quality=15)
    dirty = decode_image(buffer.getvalue())
    better = enhance.fn(
        current_store().put(buffer.getvalue(), "image/jpeg"), EnhanceParams(quality_preset="high")
    )
    pixels = decode_image(current_store().read(better))
    back = pixels.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert psnr(back, clean) > psnr(dirty, clean)


def test_refuses_a_result_that_the_format_cannot_hold(volume: Path):
    picture = stored(np.zeros((2, 5000, 3), np.uint8), "image/webp")
    with pytest.raises(InvalidFieldValueError, match=r"20000 px long.*16383.*quality_preset"):
        enhance.fn(picture, EnhanceParams(quality_preset="high"))


@pytest.mark.parametrize("data", [b"", b"just a text", b"\x89PNG\r\n\x1a\n broken"])
def test_refuses_what_is_no_picture(volume: Path, data: bytes):
    picture = current_store().put(data, "image/png")
    with pytest.raises(InvalidMediaError):
        enhance.fn(picture, EnhanceParams())


def test_defaults_and_limits():
    assert EnhanceParams().quality_preset == "medium"
    with pytest.raises(ValidationError):
        EnhanceParams.model_validate({"quality_preset": "ultra"})

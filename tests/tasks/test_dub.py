"""Sound laid under videos."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from safelight.errors import InvalidMediaError
from safelight.provenance.embed import read_record
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.ingest import ingest
from tasks.dub import DubParams, dub
from tests.media.clips import write_video
from tests.media.video.test_tracks import heard
from tests.sounds import write_tone

SIDE, FRAMES, FPS = 32, 50, 25
FilmOf = Callable[..., ArtifactRef]


@pytest.fixture
def film(volume: Path) -> ArtifactRef:
    """Two silent seconds, brighter with each frame."""
    folder = volume / "uploads"
    folder.mkdir(parents=True)
    shades = (np.full((SIDE, SIDE, 3), 4 * at, np.uint8) for at in range(FRAMES))
    write_video(folder / "film.mp4", shades, Fraction(FPS))
    return ingest(str(folder / "film.mp4"), ("video",))


def tone(film: ArtifactRef, seconds: float, hertz: float = 440) -> ArtifactRef:
    folder = current_store().fetch(film).parents[2] / "uploads"
    folder.mkdir(exist_ok=True)
    path = write_tone(folder / f"{hertz:g}-{seconds:g}.wav", seconds, hertz)
    return ingest(str(path), ("audio",))


def packets(ref: ArtifactRef) -> list[bytes]:
    with av.open(str(current_store().fetch(ref))) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def pitch(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * 48_000 / len(samples))


def test_the_picture_stays_bit_for_bit_and_the_sound_is_heard(film: ArtifactRef):
    made = dub.fn(film, tone(film, 2.0), DubParams())
    assert packets(made) == packets(film)
    assert (made.frames, made.fps, made.width, made.media_type) == (50, 25, 32, "video/mp4")
    samples = heard(current_store().fetch(made))
    assert abs(len(samples) / 48_000 - 2) < 0.05
    assert abs(pitch(samples[10_000:58_000]) - 440) < 2
    assert 0.45 < np.abs(samples[10_000:58_000]).max() < 0.55
    assert not made.metadata["notes"]
    record = read_record(current_store().fetch(made))
    assert record is not None
    assert record.stage == "dub"
    assert len(record.sources) == 2
    assert dub.fn(film, tone(film, 2.0), DubParams()).sha256 == made.sha256


def test_a_longer_sound_fades_and_is_cut(film: ArtifactRef):
    made = dub.fn(film, tone(film, 3.5), DubParams(fade_seconds=1))
    samples = heard(current_store().fetch(made))
    assert abs(len(samples) / 48_000 - 2) < 0.05
    loud = [np.abs(samples[at : at + 2400]).max() for at in (24_000, 70_000, 91_000)]
    assert loud[0] > 0.45 > loud[1] > loud[2]
    assert loud[2] < 0.1
    assert made.metadata["notes"] == ["wav goes on after the picture: cut there"]


def test_a_shorter_sound_ends_earlier_and_says_so(film: ArtifactRef):
    made = dub.fn(film, tone(film, 0.5), DubParams())
    assert made.metadata["notes"] == [
        "the sound ends 1.5 s before the picture: silent from there on"
    ]
    samples = heard(current_store().fetch(made))
    assert np.abs(samples[30_000:]).max(initial=0) < 0.01
    assert np.abs(samples[:20_000]).max() > 0.45


def test_what_is_too_loud_is_said(film: ArtifactRef):
    made = dub.fn(film, tone(film, 2.0), DubParams(volume=4))
    (said,) = made.metadata["notes"]
    assert said.endswith("samples of the sound were louder than full scale: clipped")
    quiet = heard(current_store().fetch(dub.fn(film, tone(film, 2.0), DubParams(volume=0.1))))
    assert np.abs(quiet).max() < 0.1


def test_new_sound_takes_the_place_of_the_old(film: ArtifactRef):
    first = dub.fn(film, tone(film, 2.0), DubParams())
    second = dub.fn(first, tone(film, 2.0, 1500), DubParams())
    assert packets(second) == packets(film)
    with av.open(str(current_store().fetch(second))) as container:
        assert len(container.streams.audio) == 1
    assert abs(pitch(heard(current_store().fetch(second))[10_000:58_000]) - 1500) < 2
    assert second.metadata["notes"] == [
        "left out of the video: what stood beside its picture (audio)"
    ]


def test_what_is_no_sound_is_refused(film: ArtifactRef, volume: Path):
    with pytest.raises(InvalidMediaError, match="expected WAV, MP3, M4A, FLAC or Ogg"):
        dub.fn(film, film, DubParams())

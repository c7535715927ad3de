"""Sound laid under a video, whose picture is copied bit for bit."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from safelight.errors import InvalidMediaError
from safelight.media.sound import probe_sound
from safelight.media.video.encoding import OPTIONS
from safelight.media.video.opening import media_errors, opened, require_file
from safelight.media.video.stream import probe
from safelight.media.video.tracks import TECHNICAL, Format
from safelight.progress import note

if TYPE_CHECKING:
    from av import AudioStream
    from av.container import OutputContainer

RATE = 48000
"""Samples a second of the new track."""
ENCODERS = {"mp4": "aac", "matroska": "aac", "webm": "libopus"}
"""Codec of the sound in each container."""
Samples = NDArray[np.float32]


def dub(
    video: Path,
    sound: Path,
    target: Path,
    tags: dict[str, str],
    *,
    container: Format,
    volume: float,
    fade_seconds: float,
) -> None:
    """Write a video with other sound; a longer one is cut at its end, a shorter one ends earlier.

    Args:
        video: what is shown.
        sound: WAV, MP3, M4A, FLAC or Ogg.
        target: the file to make.
        tags: container metadata of it.
        container: of the video.
        volume: factor on each sample; what goes beyond full scale is clipped, with a note.
        fade_seconds: where the sound is cut, how long it fades before that.

    Raises:
        InvalidMediaError: one of both cannot be decoded.
        MissingFileError: one of both is not there.
    """
    import av

    require_file(sound)
    probe_sound(sound)
    info = probe(video)
    length = round(Fraction(info.frames) / info.fps * RATE)
    with opened(video) as (source, picture), media_errors(video):
        others = [each for each in source.streams if each.index != picture.index]
        if others:
            kinds = ", ".join(sorted({each.type or "unknown" for each in others}))
            note(f"left out of the video: what stood beside its picture ({kinds})")
        with av.open(str(target), "w", format=container, options=OPTIONS[container]) as made:
            kept = {k: v for k, v in source.metadata.items() if k.lower() not in TECHNICAL}
            made.metadata.update(kept | tags)
            shown: Any = made.add_stream_from_template(picture)
            shown.metadata.update(picture.metadata)
            track = _Track(made, container, sound, length, volume, fade_seconds)
            for packet in source.demux(picture):
                if packet.dts is None:
                    continue
                track.write_until(Fraction(packet.dts) * (packet.time_base or 1))
                packet.stream = shown
                made.mux(packet)
            track.finish()


class _Track:
    """The new sound, encoded as far as the picture has come."""

    def __init__(
        self,
        target: "OutputContainer",
        container: Format,
        sound: Path,
        length: int,
        volume: float,
        fade_seconds: float,
    ) -> None:
        self._target = target
        self._volume = volume
        self._fade = round(fade_seconds * RATE)
        self._length = length
        self._sound = sound
        self._blocks = _blocks(sound)
        first = next(self._blocks, None)
        if first is None:
            raise InvalidMediaError(f"{sound.name} holds no sound", "give another file")
        self._held: Samples | None = first
        self._layout = "mono" if len(first) == 1 else "stereo"
        self._stream: AudioStream = target.add_stream(  # pyright: ignore[reportAttributeAccessIssue]
            ENCODERS[container], rate=RATE, layout=self._layout
        )
        self._written = 0
        self._loud = 0

    def write_until(self, seconds: Fraction) -> None:
        """Encode what is heard before a moment."""
        while self._held is not None and self._written < seconds * RATE:
            self._write(self._held)
            self._held = next(self._blocks, None)

    def finish(self) -> None:
        """Encode the rest, and say where sound and picture differ in length."""
        self.write_until(Fraction(self._length, RATE))
        cut = self._held is not None or self._written > self._length
        self._target.mux(self._stream.encode(None))
        if cut:
            note(f"{self._sound.suffix[1:] or 'the sound'} goes on after the picture: cut there")
        elif self._length - self._written > RATE // 10:
            missing = (self._length - self._written) / RATE
            note(f"the sound ends {missing:.1f} s before the picture: silent from there on")
        if self._loud:
            note(f"{self._loud} samples of the sound were louder than full scale: clipped")

    def _write(self, block: Samples) -> None:
        import av

        samples = block[:, : max(self._length - self._written, 0)]
        start = self._written
        self._written += block.shape[1]
        if not samples.shape[1]:
            return
        samples = samples * np.float32(self._volume) * self._fading(start, samples.shape[1])
        self._loud += int((np.abs(samples) > 1).sum())
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.clip(-1, 1)), format="fltp", layout=self._layout
        )
        frame.sample_rate = RATE
        frame.pts = start
        frame.time_base = Fraction(1, RATE)
        self._target.mux(self._stream.encode(frame))

    def _fading(self, start: int, count: int) -> Samples:
        """Factors that fall to 0 at the end of the picture."""
        if not self._fade:
            return np.ones(count, np.float32)
        left = self._length - start - np.arange(count)
        return np.clip(left / self._fade, 0, 1).astype(np.float32)


def _blocks(sound: Path) -> Iterator[Samples]:
    """(1 or 2, n) samples from -1 to 1 at `RATE`, as they are decoded."""
    import av

    with media_errors(sound), av.open(str(sound), metadata_errors="replace") as container:
        stream = container.streams.audio[0]
        layout = "mono" if stream.layout.nb_channels == 1 else "stereo"
        if stream.layout.nb_channels > len(("left", "right")):
            note(f"the sound has {stream.layout.nb_channels} channels: mixed down to stereo")
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=RATE)
        for frame in container.decode(stream):
            for each in resampler.resample(frame):
                yield each.to_ndarray().astype(np.float32)
        for each in resampler.resample(None):
            yield each.to_ndarray().astype(np.float32)

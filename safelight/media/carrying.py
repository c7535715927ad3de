"""Taking over tracks beside the picture into a new container, packet by packet."""

from fractions import Fraction
from typing import TYPE_CHECKING

from safelight.media.video.tracks import Surroundings, Track, kept_tags
from safelight.progress import note

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet
    from av.container import OutputContainer
    from av.stream import Stream

    AnyPacket = Packet[Stream]

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
"""Samples a second that AAC knows; others become 48000."""
USUAL_LAYOUTS = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
"""By the number of channels, where a file does not say which is which; FFmpeg's own choice."""


class Carrier:
    """Tracks and chapters of one container in another one."""

    def __init__(self, target: "OutputContainer", beside: Surroundings, later: Fraction) -> None:
        """Add the tracks to a container whose header is not written yet.

        Args:
            target: the new container; its picture is there already.
            beside: what to take over.
            later: seconds by which everything moves.
        """
        self._target = target
        self._later = later
        self._copied: dict[int, Stream] = {}
        self._encoded: dict[int, _SoundEncoder] = {}
        for track in beside.tracks:
            if track.encoder is None:
                made = target.add_stream_from_template(track.source)
                self._copied[track.source.index] = made
            else:
                encoder = _SoundEncoder(target, track)
                self._encoded[track.source.index] = encoder
                made = encoder.stream
            made.metadata.update(kept_tags(track.source.metadata))
            made.disposition = track.source.disposition
        moved = [
            {**chapter, "start": chapter["start"] + shift, "end": chapter["end"] + shift}
            for chapter in beside.chapters
            for shift in (_ticks(later, chapter["time_base"]),)
        ]
        if moved:
            target.set_chapters(moved)  # pyright: ignore[reportArgumentType]

    def carry(self, packet: "AnyPacket") -> None:
        """Write one packet of a track, bit for bit or encoded anew."""
        index = packet.stream.index
        if index in self._encoded:
            self._target.mux(self._encoded[index].encode(packet, self._later))
            return
        shift = _ticks(self._later, packet.time_base)
        if shift:
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts = None if packet.dts is None else packet.dts + shift
        packet.stream = self._copied[index]
        self._target.mux(packet)

    def finish(self) -> None:
        """Write what encoders hold back."""
        for encoder in self._encoded.values():
            self._target.mux(encoder.finish(self._later))


def _ticks(seconds: Fraction, tick: Fraction | None) -> int:
    return round(seconds / tick) if seconds and tick else 0


class _SoundEncoder:
    """Decodes a track and encodes it with another codec."""

    def __init__(self, target: "OutputContainer", track: Track) -> None:
        source: AudioStream = track.source  # pyright: ignore[reportAssignmentType]
        self._source = source
        rate = source.rate
        if track.encoder == "aac" and rate not in AAC_RATES:
            rate = 48000
        self.stream: AudioStream = target.add_stream(  # pyright: ignore[reportAttributeAccessIssue]
            track.encoder or "aac", rate=rate, layout=_named_layout(source)
        )
        self._damaged = 0

    def encode(self, packet: "AnyPacket | None", later: Fraction) -> "list[AnyPacket]":
        """Packets that are ready; None ends the track."""
        import av.error

        made: list[AnyPacket] = []
        try:
            frames: list[AudioFrame] = self._source.decode(packet)  # pyright: ignore
        except av.error.FFmpegError:
            self._damaged += 1
            frames = []
        for frame in frames:
            if later and frame.pts is not None:
                frame.pts += _ticks(later, frame.time_base)
            made += self.stream.encode(frame)  # pyright: ignore
        return made

    def finish(self, later: Fraction) -> "list[AnyPacket]":
        """The end of the track."""
        made = self.encode(None, later)
        if self._damaged:
            note(f"{self._damaged} packets of sound are damaged: silent there")
        return [*made, *self.stream.encode(None)]  # pyright: ignore


def _named_layout(source: "AudioStream") -> str:
    """Which channel is which; encoders take no layout that leaves it open."""
    layout = source.layout
    unnamed = any(channel.name == "NONE" for channel in layout.channels)
    if unnamed and 0 < layout.nb_channels <= len(USUAL_LAYOUTS):
        return USUAL_LAYOUTS[layout.nb_channels - 1]
    return layout.name

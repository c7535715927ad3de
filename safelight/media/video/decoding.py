"""Frames of a video in the order they are shown: whole pictures, upright, one at a time."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safelight.errors import InvalidMediaError
from safelight.media.layers import covered, joined, on_white, split
from safelight.media.orientation import orientation_of, side_data_of
from safelight.media.video.colour import has_alpha, to_rgb
from safelight.media.video.deinterlacing import Deinterlacer
from safelight.media.video.opening import media_errors
from safelight.pixels import Pixels
from safelight.progress import note

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.codeccontext import VideoCodecContext

    AnyPacket = Packet[Stream]


ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own decoders of these do not see the transparency beside the picture."""
LEFT_ASIDE = {
    "A53_CC": "closed captions inside its frames",
    "AFD": "which part of its frames is meant to be seen",
    "PANSCAN": "which part of its frames is meant to be seen",
    "S12M_TIMECODE": "timecodes inside its frames",
    "SPHERICAL": "that its frames are a sphere to look around in",
    "STEREO3D": "that it is stereoscopic; both views are in the frames as before",
}
"""What frames that are encoded anew lose, by FFmpeg's names."""


class Decoder:
    """Decodes one video stream."""

    def __init__(self, container: "InputContainer", stream: "VideoStream", path: Path) -> None:
        """Prepare; nothing is read yet.

        Args:
            container: as `opened` gives it.
            stream: the video stream.
            path: the file, for messages.
        """
        self._container, self._stream, self._path = container, stream, path
        self._codec = _alpha_decoder(stream)
        self._deinterlacer = Deinterlacer(stream)
        self._size: tuple[int, int] | None = None
        self._lost: set[str] = set()
        """Of `LEFT_ASIDE`, what the frames decoded so far had."""

    def frames(
        self,
        others: "Sequence[Stream]" = (),
        forward: "Callable[[AnyPacket], None]" = lambda packet: None,
    ) -> "Iterator[VideoFrame]":
        """Decoded frames, none of them interlaced any more.

        Args:
            others: further streams of the container.
            forward: is given the packets of `others` as they are met.

        Raises:
            InvalidMediaError: a part is damaged, or frames have different sizes.
        """
        for frame in self._decoded(others, forward):
            if frame is not None:
                self._check(frame)
            with media_errors(self._path):
                ready = list(self._deinterlacer.take(frame))
            yield from ready

    def _check(self, frame: "VideoFrame") -> None:
        at = f"{float(frame.time or 0):.2f} s"
        if frame.is_corrupt:
            raise InvalidMediaError(
                f"{self._path.name} is damaged at {at}", "export the video again"
            )
        size = frame.width, frame.height
        if self._size is None:
            self._size = size
        if size != self._size:
            before, now = (f"{width}x{height} px" for width, height in (self._size, size))
            raise InvalidMediaError(
                f"{self._path.name} has frames of {before}, and of {now} from {at} on; expected "
                "one size",
                "cut it in two where the size changes, or export it again in one size",
            )

    def pixels(
        self,
        others: "Sequence[Stream]" = (),
        forward: "Callable[[AnyPacket], None]" = lambda packet: None,
    ) -> Iterator[Pixels]:
        """The same as (H, W, 3) uint8, turned as a player shows them; transparency on white."""
        for frame in self.frames(others, forward):
            yield self.shown(frame)

    def layers(
        self,
        others: "Sequence[Stream]" = (),
        forward: "Callable[[AnyPacket], None]" = lambda packet: None,
    ) -> Iterator[Pixels]:
        """The same as (H, W, 4) uint8: what is not seen has the colours around it."""
        for frame in self.frames(others, forward):
            yield covered(joined(*split(self._upright(frame))))

    def is_transparent(self) -> bool:
        """Whether any pixel is; decodes up to the first one, so the video is opened anew then."""
        return any(
            self._upright(frame)[..., 3].min() < 255 for frame in self.frames() if has_alpha(frame)
        )

    def shown(self, frame: "VideoFrame") -> Pixels:
        """One frame as (H, W, 3) uint8, turned as a player shows it; transparency on white."""
        return on_white(self._upright(frame))

    def _upright(self, frame: "VideoFrame") -> Pixels:
        with media_errors(self._path):
            beside = side_data_of(frame)
            self._lost.update(LEFT_ASIDE[kind] for kind in LEFT_ASIDE.keys() & (beside or {}))
            turned = orientation_of(frame, beside)
            return turned.upright(to_rgb(frame, self._stream, self._path))

    def note_changes(self) -> None:
        """Say what was done to the frames decoded so far."""
        if self._deinterlacer.frames:
            note(
                f"{self._deinterlacer.frames} frames were interlaced: deinterlaced, one whole "
                "frame for each"
            )
        for what in sorted(self._lost):
            note(f"left aside of the source: {what}")

    def _decoded(
        self, others: "Sequence[Stream]", forward: "Callable[[AnyPacket], None]"
    ) -> "Iterator[VideoFrame | None]":
        """Frames, then None."""
        packets = self._container.demux([self._stream, *others])
        while True:
            with media_errors(self._path):
                packet = next(packets, None)
            if packet is None:
                break
            if packet.stream is not self._stream:
                if packet.dts is not None:  # the empty packet at the end flushes decoders
                    forward(packet)
                continue
            with media_errors(self._path):
                made = self._decode(packet)
            yield from made
        yield None

    def _decode(self, packet: "AnyPacket") -> "list[VideoFrame]":
        if self._codec is None:
            return self._stream.decode(packet)  # pyright: ignore[reportArgumentType]
        return self._codec.decode(packet if packet.size else None)  # pyright: ignore[reportArgumentType]


def _alpha_decoder(stream: "VideoStream") -> "VideoCodecContext | None":
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    name = ALPHA_DECODERS.get(stream.codec_context.name)
    if name is None or tags.get("alpha_mode") != "1":
        return None
    from av.codec import CodecContext

    context: VideoCodecContext = CodecContext.create(name, "r")  # pyright: ignore[reportAssignmentType]
    context.extradata = stream.codec_context.extradata
    return context

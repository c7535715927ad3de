"""Encoding frames as they come, as H.264 or VP9, with what belongs to them from elsewhere."""

import errno
from collections.abc import Generator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from safelight.errors import DiskFullError, ForbiddenPathError, InvalidMediaError
from safelight.media.carrying import Carrier
from safelight.media.video.colour import BT709, LIMITED, ColourTags, to_encode
from safelight.media.video.opening import MKV, MP4, WEBM
from safelight.media.video.tracks import ALONE, Surroundings
from safelight.pixels import Pixels
from safelight.progress import note

if TYPE_CHECKING:
    from av import Packet, VideoStream
    from av.stream import Stream

    AnyPacket = Packet[Stream]


X264 = {"crf": "16", "preset": "medium", "mbtree": "0"}
"""Visually lossless. Macroblock trees are off, because x264 reads memory there that it never wrote:
the same frames would give other bytes each time."""
VP9 = {"crf": "10", "b": "0", "auto-alt-ref": "0", "cpu-used": "2", "row-mt": "1"}
"""The same for transparent frames, with which frames that are not shown do not go."""
ENCODER_THREADS = 4
"""Fixed, because the output of encoders depends on it."""
OFFSET_STEPS = 100
"""Ticks per frame where the picture starts later than the sound, so that neither is moved."""
OPTIONS = {
    "mp4": {"fflags": "+bitexact", "movflags": "+faststart+use_metadata_tags"},
    "matroska": {"fflags": "+bitexact"},
    "webm": {"fflags": "+bitexact"},
}
MEDIA_TYPES = {"mp4": MP4, "matroska": MKV, "webm": WEBM}


class FrameWriter:
    """Encodes frames as they come; the file appears at `target` only when all went well.

    Use as a context manager. Whatever is raised inside leaves no file behind.
    """

    def __init__(
        self,
        target: Path,
        fps: Fraction,
        tags: dict[str, str],
        beside: Surroundings = ALONE,
        pixel_aspect: Fraction | None = None,
        start_seconds: Fraction = Fraction(0),
        colours: ColourTags | None = None,
        *,
        transparent: bool = False,
    ) -> None:
        """Open the partial file.

        Args:
            target: the file to make; its extension plays no part, see `media_type`.
            fps: frames per second of the result.
            tags: container metadata, for instance `comment`; any key survives.
            beside: what to carry over from another container.
            pixel_aspect: width over height of one pixel; None is square.
            start_seconds: when `add` shows the first frame, on the clock of the sound.
            colours: what the pixels' red, green and blue are; None is BT.709.
            transparent: whether frames are (H, W, 4), in a container that is not MP4.
        """
        import av

        self._target = target
        self._partial = target.with_name(f".part-{target.name}")
        self._fps = fps
        self._pixel_aspect = pixel_aspect
        # a player starts at 0: what came before moves there, and the sound with it
        self._later = max(-start_seconds, Fraction(0))
        self._start_seconds = start_seconds + self._later
        self._colours = colours or ColourTags()
        self._video: VideoStream | None = None
        self._size = (0, 0)
        self._early: list[AnyPacket] = []
        self._lasts: dict[int, int] = {}
        self.media_type = MEDIA_TYPES[beside.container]
        """Of the container that can hold what stands beside the picture."""
        self._transparent = transparent
        for text in beside.notes:
            note(text)
        self.frames = 0
        """Frames added so far."""
        with _writing_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(
                str(self._partial),
                "w",
                format=beside.container,
                options=OPTIONS[beside.container],
            )
        self._container.metadata.update(dict(beside.metadata) | tags)
        self._beside = beside
        self._carrier: Carrier | None = None

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file, or remove what there is of it."""
        try:
            if kind is None:
                self._finish()
        finally:
            try:
                with _writing_errors(self._target):
                    self._container.close()
            finally:
                self._partial.unlink(missing_ok=True)

    def add(self, pixels: Pixels) -> None:
        """Append one frame, (H, W, 3 or 4) uint8 sRGB, 1 / fps after the one before."""
        steps = OFFSET_STEPS if self._start_seconds else 1
        tick = 1 / (self._fps * steps)
        pts = self.frames * steps + round(self._start_seconds / tick)
        self._append(pixels, pts, steps, tick, {})

    def add_at(self, pixels: Pixels, pts: int, duration: int, tick: Fraction) -> None:
        """Append one frame at a time of its own.

        Args:
            pixels: (H, W, 3 or 4) uint8 sRGB; all frames of one file have the same size.
            pts: when to show it, in ticks; later than the frame before.
            duration: how long to show it, in ticks.
            tick: seconds per tick; the same for all frames.
        """
        # MP4 counts durations in decoding order: without B-frames that is the order of showing
        later = round(self._later / tick)
        self._append(pixels, pts + later, duration, tick, {"bf": "0"})

    def _append(
        self, pixels: Pixels, pts: int, duration: int, tick: Fraction, options: dict[str, str]
    ) -> None:
        height, width = pixels.shape[:2]
        if self._video is None:
            self._video = self._start(width, height, tick, options)
        if (width, height) != self._size:
            raise InvalidMediaError(
                f"frame {self.frames} is {width}x{height} px, the frames before it are "
                f"{self._size[0]}x{self._size[1]} px",
                "give all frames of a video one size",
            )
        frame = to_encode(pixels, self._video.pix_fmt or "yuv420p", self._colours)
        frame.pts = pts
        frame.time_base = self._video.codec_context.time_base
        self._lasts[pts] = duration
        self.frames += 1
        self._mux(self._video.encode(frame))

    def carry(self, packet: "AnyPacket") -> None:
        """Take over one packet of a track that stands `beside` the picture."""
        if self._carrier is None:
            self._early.append(packet)
            return
        with _writing_errors(self._target):
            self._carrier.carry(packet)

    def _start(
        self, width: int, height: int, tick: Fraction, options: dict[str, str]
    ) -> "VideoStream":
        if self._transparent:
            stream = self._container.add_stream("libvpx-vp9", rate=self._fps, options=VP9)
            stream.pix_fmt = "yuva420p"
            stream.metadata["alpha_mode"] = "1"
        else:
            stream = self._container.add_stream("libx264", rate=self._fps, options=X264 | options)
            stream.pix_fmt = self._opaque_format(width, height)
        stream.width, stream.height = width, height
        context = stream.codec_context
        context.time_base = tick
        context.thread_count = ENCODER_THREADS
        context.colorspace = BT709
        context.color_primaries = self._colours.primaries
        context.color_trc = self._colours.transfer
        context.color_range = LIMITED
        if self._pixel_aspect:
            context.sample_aspect_ratio = self._pixel_aspect
        stream.metadata.update(self._beside.picture)
        self._size = (width, height)
        with _writing_errors(self._target):
            self._carrier = Carrier(self._container, self._beside, self._later)
        for packet in self._early:
            self.carry(packet)
        self._early.clear()
        return stream

    def _opaque_format(self, width: int, height: int) -> str:
        if width % 2 == 0 and height % 2 == 0:
            return "yuv420p"
        note(
            f"{width}x{height} px is odd: colour is kept at full resolution (4:4:4), "
            "which some players cannot show"
        )
        return "yuv444p"

    def _mux(self, packets: "list[AnyPacket]") -> None:
        with _writing_errors(self._target):
            for packet in packets:
                packet.duration = self._lasts.pop(packet.pts or 0)
                self._container.mux(packet)

    def _finish(self) -> None:
        if self._video is None:
            raise InvalidMediaError(
                "no frame was given for the video, expected at least 1", "pass frames to encode"
            )
        self._mux(self._video.encode(None))
        with _writing_errors(self._target):
            if self._carrier is not None:
                self._carrier.finish()
            self._container.close()  # writes the index; what fails here must not be renamed
            self._partial.replace(self._target)


@contextmanager
def _writing_errors(path: Path) -> Generator[None]:
    """Tell a full or forbidden disk from a source whose parts no container takes."""
    from av.error import FFmpegError

    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"no room left to write {path}", "free space or move VOLUME_ROOT to a larger disk"
            ) from error
        raise ForbiddenPathError(
            f"{path}: {error.strerror}", "give this user read and write rights on the folder"
        ) from error
    except FFmpegError as error:
        raise InvalidMediaError(
            f"what stands beside the picture is damaged and cannot be written: {error.strerror}",
            "export the video again, or without sound and subtitles",
        ) from error

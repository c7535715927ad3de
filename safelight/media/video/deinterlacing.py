"""Whole pictures of frames that hold two half pictures taken one after the other."""

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.filter import Graph

TOP_FIRST, BOTTOM_FIRST = (2, 5), (3, 4)
"""FFmpeg's numbers of the orders of half pictures, by which one is shown first."""
TELLS_BY_FRAME = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "vp9"})
"""Codecs whose frames say themselves whether they are interlaced; of others the container does."""
FEWEST_LINES = 4
"""Lower pictures have no half pictures that could be filled in."""


class Deinterlacer:
    """Passes whole frames on as they are and fills in the missing lines of the others.

    One frame comes out for each that goes in, later by one where interlaced ones are about.
    """

    def __init__(self, stream: "VideoStream") -> None:
        """Look at what the container says of the stream; frames may say more."""
        order = int(stream.codec_context.field_order or 0)
        by_frame = stream.codec_context.name in TELLS_BY_FRAME
        self._order = 0 if by_frame else order
        self._stream = stream
        self._graph: Graph | None = None
        self._waiting: deque[VideoFrame] = deque()
        self.frames = 0
        """How many have been interlaced so far."""

    def take(self, frame: "VideoFrame | None") -> "Iterator[VideoFrame]":
        """Frames that are ready, each with its source's time; None ends the video."""
        if frame is not None:
            interlaced = frame.interlaced_frame or self._order in (*TOP_FIRST, *BOTTOM_FIRST)
            interlaced = interlaced and frame.height >= FEWEST_LINES
            self.frames += interlaced
            if not interlaced and self._graph is None:
                yield frame
                return
            if self._graph is None:
                self._graph = self._opened(frame)
            self._waiting.append(frame)
        if self._graph is None:
            return
        from av.error import BlockingIOError as NothingYet
        from av.error import EOFError as Ended

        self._graph.vpush(frame)
        while True:
            try:
                made = self._graph.vpull()
            except (NothingYet, Ended):
                return
            source = self._waiting.popleft()
            made.pts, made.time_base = source.pts, source.time_base
            yield made

    def _opened(self, frame: "VideoFrame") -> "Graph":
        from av.filter import Graph

        graph = Graph()
        nodes = [
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base,
            )
        ]
        if self._order and not frame.interlaced_frame:
            mode = "tff" if self._order in TOP_FIRST else "bff"
            nodes.append(graph.add("setfield", f"mode={mode}"))
        nodes.append(graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced"))
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes)
        graph.configure()
        return graph

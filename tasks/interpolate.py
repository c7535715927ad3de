"""The interpolate stage: a video at a higher frame rate, with its sound."""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from statistics import median_low
from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from safelight.engines.interface import InterpolateRequest, Interpolates
from safelight.errors import InvalidFieldValueError
from safelight.media.layers import joined, only_grey
from safelight.media.video.frame_times import FrameTimes
from safelight.media.video.retiming import (
    NOMINAL_RATES,
    Distinct,
    Pending,
    exact_target,
    frames_after,
    in_order,
    nominal_rate,
    retimed_at,
)
from safelight.media.video.stream import VideoInfo, frame_times, probe
from safelight.params import Params
from safelight.pixels import Pixels
from safelight.progress import note
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import serving
from tasks.base.keeping import record_of
from tasks.base.resuming import resuming_begun
from tasks.base.stage import cache_key, stage
from tasks.base.video_stage import transformed

Rate = Literal[24, 25, 30, 50, 60, 120, 240]
Begin = Callable[[Pixels, Pixels, float], Pending]


class InterpolateParams(Params):
    """From which frame rate to which."""

    source_fps: Rate | None = None
    """Frame rate of the video; read from the file when not given, and checked against it when
    given. 23.976, 29.97 and 59.94 count as 24, 30 and 60."""
    target_fps: Rate
    """Frame rate of the result, above the source's, which may be any. A source at 29.97 gives 59.94
    for 60."""
    duplicates: Literal["keep", "drop"] = "keep"
    """drop leaves out frames that repeat the one before, so that animation on twos and recordings
    of a screen move evenly; keep shows them as long as the source does."""

    @model_validator(mode="after")
    def _target_is_above_source(self) -> Self:
        if self.source_fps is not None and self.target_fps <= self.source_fps:
            raise ValueError(_not_above(self.source_fps, self.target_fps))
        return self


def _request(params: InterpolateParams) -> InterpolateRequest:
    return InterpolateRequest(params.target_fps)


@stage(
    reads={"video": ("video",)},
    makes="video",
    origin="enhances",
    needs=lambda params, _: (_request(params),),
    revision=2,
)
def interpolate(video: ArtifactRef, params: InterpolateParams) -> ArtifactRef:
    """Raise the frame rate of a stored video.

    Frames of the source that fall on an output time are kept and those between are made by RIFE,
    except across a cut, where the nearest one is repeated. Sound is carried over bit for bit.

    Args:
        video: MP4, MOV, MKV, WebM or MXF at any frame rate below the target, even or not.
        params: source and target rate.

    Returns:
        A new artifact as long as `video`: exactly where the number of frames allows, else longer
        by less than one output frame, which its notes then say. MP4, WebM where something is
        transparent, MKV where that cannot hold the sound.

    Raises:
        InvalidMediaError: not such a video, or damaged.
        InvalidFieldValueError: the target is not above the rate of the file, or `source_fps` is
            not that rate.
        OutOfMemoryError: the device has too little memory even for bands of 64 rows.
    """
    source = current_store().fetch(video)
    info = probe(source)
    target = target_rate(info, params)
    frames = frames_after(info.frames, info.fps, target)
    if frames / target != info.duration_seconds:
        more = float(frames / target - info.duration_seconds)
        note(f"{info.frames} frames do not fill whole frames at the new rate: {more:.4f} s longer")
    record = record_of(params, [video])
    engine = serving(Interpolates).open_interpolator(_request(params))
    key = cache_key(interpolate, [video, params])
    times = frame_times(source)
    usual = _usual(times)
    repeats: list[Distinct] = []

    def retimed(begin: Begin, shown: Iterator[Pixels]) -> Iterator[Pixels]:
        timed: Iterable[tuple[Fraction, Pixels]] = zip(_shown_at(info, times), shown, strict=False)
        if params.duplicates == "drop":
            timed = Distinct(timed)
            repeats.append(timed)
        return in_order(retimed_at(timed, frames, target, partial(_begun, begin), usual))

    resumable = resuming_begun(key, engine.begin)
    made = transformed(video, record, resumable, retimed, fps=target, frames=frames, layered=True)
    if any(each.dropped for each in repeats):
        note(f"{repeats[0].dropped} frames that repeat the one before were dropped")
    return made


def _begun(begin: Begin, first: Pixels, second: Pixels, timestep: float) -> Pending:
    """Begin a frame; transparency moves as a grey picture of its own does."""
    if first.shape[2] == 3:
        return begin(first, second, timestep)
    one, two = (np.ascontiguousarray(each[..., :3]) for each in (first, second))
    colours = begin(one, two, timestep)
    one, two = (np.repeat(each[..., 3:], 3, axis=2) for each in (first, second))
    alphas = begin(one, two, timestep)
    return lambda: joined(colours(), only_grey(alphas())[..., 0])


def _shown_at(info: VideoInfo, times: FrameTimes) -> Iterator[Fraction]:
    """Seconds from the first frame to each; exact at an even rate, whatever the file's clock."""
    if info.jitter_seconds:
        return times.since_start()
    return (index / info.fps for index in range(info.frames))


def _usual(times: FrameTimes) -> Fraction:
    """Seconds from one frame to the next, for most of them."""
    return median_low([times.lasts(index) for index in range(len(times.ticks))]) * times.tick


def require_target(video: ArtifactRef, params: InterpolateParams) -> None:
    """Refuse rates that do not fit a stored video, for those who work on it before.

    Raises:
        InvalidFieldValueError: as `interpolate`.
    """
    target_rate(probe(current_store().fetch(video)), params)


def target_rate(info: VideoInfo, params: InterpolateParams) -> Fraction:
    """The exact rate of the result: for 60 from a file at 30000/1001 it is 60000/1001.

    Raises:
        InvalidFieldValueError: the rates of file and parameters do not fit.
    """
    if info.jitter_seconds:
        note(
            f"frames are shown up to {float(info.jitter_seconds * 1000):.0f} ms off an even "
            f"{float(info.fps):.3f} a second: the new ones follow their own times, evenly"
        )
    if params.source_fps not in (None, nominal_rate(info.fps)):
        raise InvalidFieldValueError(
            f"source_fps is {params.source_fps}, the video has {float(info.fps):.3f} frames a "
            "second",
            "leave interpolate.source_fps out, it is read from the file",
        )
    target = exact_target(info.fps, params.target_fps)
    if info.jitter_seconds:
        target = Fraction(params.target_fps)
    if target <= info.fps:
        name = nominal_rate(info.fps) or round(float(info.fps), 3)
        raise InvalidFieldValueError(
            _not_above(name, params.target_fps), "set interpolate.target_fps to a higher rate"
        )
    return target


def _not_above(source: float, target: int) -> str:
    higher = ", ".join(str(rate) for rate in NOMINAL_RATES if rate > source)
    fix = f"use one of {higher}" if higher else f"a source at {source} cannot be raised further"
    return f"target_fps {target} is not above source_fps {source}; {fix}"

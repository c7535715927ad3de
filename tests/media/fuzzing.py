"""Opens small damaged files of all formats, in a process of its own; tells each try.

Run as `python -m tests.media.fuzzing FOLDER SEED COUNT`. One line a try is written before it
begins, so that the last line names what ended the process, and one with what came of it.
"""

import io
import random
import re
import resource
import struct
import sys
import time
import wave
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from safelight.errors import PipelineError
from safelight.media.still_formats import open_plugin
from safelight.store.inputs import keep_media
from safelight.store.store import current_store
from tasks.grade import GradeParams, grade
from tests.media.clips import map_frames

MEMORY_BYTES = 4 * 2**30
"""Writable memory of the process."""
SECONDS = 20
"""Of a processor, for one try."""
WIDTH, HEIGHT = 24, 20


def pictures() -> dict[str, bytes]:
    """One of each way to hold a picture."""
    levels = np.random.default_rng(7).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    frames = [Image.fromarray(np.roll(levels, at, axis=1)) for at in range(3)]
    exif = Image.Exif()
    exif[0x0112], exif[0x8298] = 6, "(c) North"
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><a>b</a></x:xmpmeta>"
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
    told = {"exif": exif, "icc_profile": profile}
    moving = {"save_all": True, "append_images": frames[1:], "duration": [40, 80, 30], "loop": 2}
    deep = Image.fromarray(levels[..., 0].astype(np.uint16) * 257)
    made = {
        "png": _written(frames[0], "PNG", pnginfo=info, dpi=(300, 300), **told),
        "png-palette": _written(frames[0].convert("RGB").quantize(16), "PNG"),
        "png-16": _written(deep, "PNG"),
        "apng": _written(frames[0], "PNG", **moving),
        "jpeg": _written(frames[0].convert("RGB"), "JPEG", xmp=xmp, comment=b"pier", **told),
        "jpeg-grey": _written(frames[0].convert("L"), "JPEG", progressive=True),
        "jpeg-cmyk": _written(frames[0].convert("CMYK"), "JPEG"),
        "mpo": _written(
            frames[0].convert("RGB"),
            "MPO",
            save_all=True,
            append_images=[frames[1].convert("RGB")],
        ),
        "webp": _written(frames[0], "WEBP", xmp=xmp, **told),
        "webp-moving": _written(frames[0], "WEBP", lossless=True, **moving),
        "gif": _written(frames[0].convert("RGB"), "GIF"),
        "gif-moving": _written(frames[0], "GIF", disposal=2, **moving),
        "tiff": _written(frames[0], "TIFF", tiffinfo={700: xmp}),
        "tiff-packed": _written(frames[0].convert("RGB"), "TIFF", compression="tiff_lzw"),
        "tiff-pages": _written(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "bmp": _written(frames[0].convert("RGB"), "BMP"),
        "avif": _written(frames[0], "AVIF", **told),
        "avif-moving": _written(frames[0], "AVIF", **moving),
        "heic": _written(frames[0].convert("RGB"), "HEIF"),
    }
    try:
        made["jxl"] = _written(frames[0], "JXL")
    except PipelineError:
        pass  # its reader is an extra
    return made


def clips(folder: Path) -> dict[str, bytes]:
    """One of each container, with the codecs that people have in it."""
    kinds: dict[str, tuple[str, str, str, str | None]] = {
        "mp4": ("mp4", "libx264", "yuv420p", "aac"),
        "mp4-mpeg4": ("mp4", "mpeg4", "yuv420p", None),
        "mov-prores": ("mov", "prores_ks", "yuva444p10le", "pcm_s16le"),
        "mov-png": ("mov", "png", "rgba", None),
        "mkv": ("matroska", "ffv1", "yuv444p", "flac"),
        "mkv-mpeg2": ("matroska", "mpeg2video", "yuv420p", "ac3"),
        "webm-vp9": ("webm", "libvpx-vp9", "yuva420p", "libopus"),
        "webm-vp8": ("webm", "libvpx", "yuv420p", "libopus"),
        "mxf": ("mxf", "mpeg2video", "yuv422p", None),
    }
    made = {name: _clip(folder / "clip", *kind) for name, kind in kinds.items()}
    sound = io.BytesIO()
    with wave.open(sound, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(range(256)) * 10)
    return made | {"wav": sound.getvalue()}


def _written(image: Image.Image, kind: str, **options: object) -> bytes:
    open_plugin(kind)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _clip(path: Path, form: str, codec: str, pix_fmt: str, sound: str | None) -> bytes:
    rate = 48000
    with av.open(str(path), "w", format=form) as out:
        picture = out.add_stream(codec, rate=25)
        picture.width, picture.height, picture.pix_fmt = 32, 32, pix_fmt
        track = out.add_stream(sound, rate=rate, layout="stereo") if sound else None
        for index in range(5):
            levels = np.full((32, 32, 3), 40 * index, np.uint8)
            levels[:, 4 * index :] = 200
            frame = av.VideoFrame.from_ndarray(levels, format="rgb24").reformat(format=pix_fmt)
            out.mux(picture.encode(frame))
        out.mux(picture.encode(None))
        if track is not None:
            kind = track.codec_context.format.name if track.codec_context.format else "fltp"
            tone = av.AudioFrame(format=kind, layout="stereo", samples=4096)
            for plane in tone.planes:
                plane.update(bytes(plane.buffer_size))
            tone.rate, tone.pts = rate, 0
            resampler = av.AudioResampler(format=kind, layout="stereo", rate=rate)
            out.mux([p for frame in resampler.resample(tone) for p in track.encode(frame)])
            out.mux(track.encode(None))
    return path.read_bytes()


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Cut off, with bits flipped, a part taken out, or a number made huge."""
    broken = bytearray(data)
    if draw.random() < 0.3:
        del broken[draw.randrange(len(broken)) :]
    if broken and draw.random() < 0.1:
        at = draw.randrange(len(broken))
        del broken[at : at + draw.randrange(1, 40)]
    if len(broken) > 8 and draw.random() < 0.15:
        at = draw.randrange(len(broken) - 4)
        broken[at : at + 4] = struct.pack(">I", draw.choice((0, 1, 2**31 - 1, 2**32 - 1)))
    # most of what people have is damaged at its head or not at all
    reach = len(broken) if draw.random() < 0.5 else min(len(broken), 400)
    for _ in range(draw.randrange(1, 6) if broken else 0):
        broken[draw.randrange(reach)] ^= 1 << draw.randrange(8)
    return bytes(broken)


def opened(path: Path, target: Path) -> None:
    """Through the door that all files take, and once through a stage."""
    ref = keep_media(path, ("image", "video", "audio"))
    if ref.kind == "image":
        grade.fn(ref, GradeParams(tone=0.1))
    elif ref.kind == "video":
        map_frames(current_store().fetch(ref), target, lambda pixels: pixels, {})


def tell(line: str) -> None:
    """To whoever started this, before the next try may end the process."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(folder: Path, seed: int, count: int) -> None:
    """Make the files, damage and open them."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    files = pictures() | clips(folder)
    tell(f"files {len(files)}")
    draw = random.Random(seed)
    path, target = folder / "tried", folder / "made"
    for at in range(count):
        name = draw.choice(sorted(files))
        path.write_bytes(damaged(files[name], draw))
        tell(f"try {at} {name}")
        begun = time.process_time()
        try:
            opened(path, target)
            came = "opened"
        except PipelineError as error:
            came = error.code
        except Exception as error:  # noqa: BLE001  # whatever it is: that is what is looked for
            came = f"{type(error).__name__}: {error}"
        if time.process_time() - begun > SECONDS:
            came = f"took {time.process_time() - begun:.0f} s"
        if came == "opened" or re.fullmatch("[A-Z_]+", came):
            tell(f"came {came}")
        else:
            kept = folder / f"found-{at}"
            kept.write_bytes(path.read_bytes())
            tell(f"wrong {kept.name} {name}: {came}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

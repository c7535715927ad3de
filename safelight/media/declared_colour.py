"""Colour that a file declares in numbers instead of a profile, brought to sRGB."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
BAND_PIXELS = 1 << 18
"""Pixels worked on at once."""
WHITE_NITS = 203.0
"""Brightness of paper white in HDR, ITU-R BT.2408."""
PEAK_NITS = 1000.0
"""What is as bright or brighter becomes white."""
_D65 = (0.3127, 0.3290)
_BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
_PRIMARIES = {
    1: (_BT709, _D65),
    4: (((0.67, 0.33), (0.21, 0.71), (0.14, 0.08)), (0.310, 0.316)),
    5: (((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), _D65),
    6: (((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)), _D65),
    7: (((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)), _D65),
    9: (((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), _D65),
    11: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), (0.314, 0.351)),
    12: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), _D65),
}
"""ITU-T H.273, table 2: red, green and blue, then white, as x and y."""
_SRGB_GAMMA = 45_455
_NEAR = 500


@dataclass(frozen=True)
class DeclaredColour:
    """How to get from the values of a file to sRGB."""

    to_light: Callable[[Doubles], Doubles]
    """From values of 0 to 1 to light; 1 is white."""
    to_srgb: Doubles | None
    """(3, 3), from the file's primaries to those of sRGB; None where they are the same."""
    remark: str | None = None
    """What people should know."""

    def applied(self, values: NDArray[Any], peak: int) -> NDArray[np.uint8]:
        """(H, W, 1 or 3) integers of 0 to `peak` as 8-bit sRGB, a band at a time."""
        light = self.to_light(np.arange(peak + 1) / peak).astype(np.float32)
        made = np.empty(values.shape, np.uint8)
        rows = max(BAND_PIXELS // values.shape[1], 1)
        for top in range(0, values.shape[0], rows):
            band = light[values[top : top + rows]]
            if self.to_srgb is not None and band.shape[2] == 3:
                band = band @ self.to_srgb.T.astype(np.float32)
            made[top : top + rows] = np.rint(_encoded(band) * 255)
        return made


def declared_colour(chunks: dict[bytes, bytes]) -> DeclaredColour | None:
    """What cICP, or else gAMA and cHRM of a PNG say; None where that is sRGB.

    Args:
        chunks: content by name; iCCP and sRGB are asked before gAMA.

    Raises:
        ValueError: values that make no sense.

    Source:
        PNG Specification, third edition, 4.3 and 11.3.2; ITU-T H.273.
    """
    if b"cICP" in chunks:
        return coded_colour(*struct.unpack(">BBBB", chunks[b"cICP"][:4].ljust(4, b"\xff"))[:2])
    if b"sRGB" in chunks:
        return None
    gamma, matrix = _SRGB_GAMMA, None
    if b"gAMA" in chunks:
        (gamma,) = struct.unpack(">I", chunks[b"gAMA"].ljust(4, b"\0")[:4])
        if not 1_000 <= gamma <= 1_000_000:
            raise ValueError(f"a gamma of {gamma / 100_000}")
    if b"cHRM" in chunks and len(chunks[b"cHRM"]) == 32:
        x_y = [value / 100_000 for value in struct.unpack(">8I", chunks[b"cHRM"])]
        white, red, green, blue = ((x_y[at], x_y[at + 1]) for at in range(0, 8, 2))
        matrix = _to_srgb((red, green, blue), white)
    plain = abs(gamma - _SRGB_GAMMA) <= _NEAR  # how sRGB is written for readers that know no sRGB
    if plain and matrix is None:
        return None
    power = 100_000 / gamma
    return DeclaredColour(_srgb_light if plain else lambda values: values**power, matrix)


def coded_colour(primaries: int, transfer: int) -> DeclaredColour | None:
    """Colour by code points; None where that is sRGB or not known.

    Raises:
        ValueError: code points that no table has.
    """
    if primaries == 2 and transfer == 2:  # unspecified
        return None
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        raise ValueError(f"colour primaries {primaries} with transfer {transfer}")
    matrix, remark = _to_srgb(*_PRIMARIES[primaries]), None
    if transfer in (16, 18):
        remark = "high dynamic range, brought down to what sRGB shows"
    light = _TRANSFERS[transfer]
    if light is _srgb_light and matrix is None:
        return None
    return DeclaredColour(light, matrix, remark)


def _to_srgb(
    primaries: tuple[tuple[float, float], ...], white: tuple[float, float]
) -> Doubles | None:
    found, wanted = _to_xyz(primaries, white), _to_xyz(_BT709, _D65)
    adapted = _adaptation(_xyz(*white), _xyz(*_D65))
    matrix = np.linalg.inv(wanted) @ adapted @ found
    if not np.isfinite(matrix).all() or np.abs(matrix).max() > 100:
        raise ValueError("primaries that span no colours")
    return None if np.allclose(matrix, np.eye(3), atol=2e-3) else matrix


def _to_xyz(primaries: tuple[tuple[float, float], ...], white: tuple[float, float]) -> Doubles:
    try:
        columns = np.stack([_xyz(x, y) for x, y in primaries], axis=1)
        return columns * np.linalg.solve(columns, _xyz(*white))
    except (np.linalg.LinAlgError, ZeroDivisionError) as error:
        raise ValueError("primaries that span no colours") from error


def _xyz(x: float, y: float) -> Doubles:
    return np.array((x / y, 1.0, (1 - x - y) / y))


def _adaptation(source: Doubles, target: Doubles) -> Doubles:
    """Bradford's, from one white to another."""
    cone = np.array(
        ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
    )
    return np.linalg.inv(cone) @ np.diag((cone @ target) / (cone @ source)) @ cone


def _srgb_light(values: Doubles) -> Doubles:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _encoded(light: NDArray[np.float32]) -> NDArray[np.float32]:
    light = np.clip(light, 0, 1)
    curved = np.float32(1.055) * light ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(light <= np.float32(0.0031308), np.float32(12.92) * light, curved)


def _pq_light(values: Doubles) -> Doubles:
    """SMPTE ST 2084, then rolled off."""
    root = values ** (1 / 78.84375)
    nits = 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (
        1 / 0.1593017578125
    )
    return _rolled_off(nits)


def _hlg_light(values: Doubles) -> Doubles:
    """ARIB STD-B67 on a display of 1000 nits, then rolled off."""
    low = values**2 / 3
    high = (np.exp((values - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return _rolled_off(PEAK_NITS * np.where(values <= 0.5, low, high) ** 1.2)


def _rolled_off(nits: Doubles) -> Doubles:
    """Reinhard et al. 2002, eq. 4: the peak becomes white, shadows stay."""
    light, peak = nits / WHITE_NITS, PEAK_NITS / WHITE_NITS
    return light * (1 + light / peak**2) / (1 + light)


_TRANSFERS: dict[int, Callable[[Doubles], Doubles]] = {
    # Shown on a display, BT.709 material has the same look as sRGB; browsers take it for that.
    **dict.fromkeys((1, 2, 6, 13, 14, 15), _srgb_light),
    4: lambda values: values**2.2,
    5: lambda values: values**2.8,
    8: lambda values: values,
    16: _pq_light,
    18: _hlg_light,
}
"""ITU-T H.273, table 3: from values to light."""

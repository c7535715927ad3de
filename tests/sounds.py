"""Sound files that tests make."""

import wave
from pathlib import Path

import numpy as np


def write_tone(path: Path, seconds: float, hertz: float = 440, rate: int = 44_100) -> Path:
    """A WAV with one even tone at half of full scale."""
    at = np.arange(round(seconds * rate)) / rate
    return _written(path, 0.5 * np.sin(2 * np.pi * hertz * at), rate)


def _written(path: Path, wanted: np.ndarray, rate: int) -> Path:
    """One channel, of -1 to 1."""
    samples = (32767 * wanted).astype("<i2")
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.tobytes())
    return path


def write_syllables(path: Path, seconds: float, rate: int = 44_100) -> Path:
    """A WAV with four syllables a second: a tone that swells and falls silent."""
    at = np.arange(round(seconds * rate)) / rate
    swell = np.sin(np.pi * (4 * at % 1)) ** 2
    return _written(path, 0.8 * swell * np.sin(2 * np.pi * 220 * at), rate)

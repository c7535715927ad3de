"""Sound files that tests make."""

import wave
from pathlib import Path

import numpy as np


def write_tone(path: Path, seconds: float, hertz: float = 440, rate: int = 44_100) -> Path:
    """A WAV with one even tone at half of full scale."""
    at = np.arange(round(seconds * rate)) / rate
    samples = (0.5 * 32767 * np.sin(2 * np.pi * hertz * at)).astype("<i2")
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.tobytes())
    return path

"""Videos: opened, decoded, timed and encoded one frame at a time."""

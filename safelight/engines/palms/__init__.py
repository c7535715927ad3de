"""Finds hands by their palms, with the detector of MediaPipe."""

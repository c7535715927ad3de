"""Finds people around their faces, with the segmentation of MediaPipe."""

"""Pixels, tiles, colour, noise and frames: plain functions on arrays."""

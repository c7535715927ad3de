"""Runware as an engine."""

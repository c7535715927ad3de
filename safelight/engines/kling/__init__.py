"""Kling as an engine."""

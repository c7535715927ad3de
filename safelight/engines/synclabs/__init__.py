"""Sync Labs as an engine."""

"""Pipelines as data: planned and checked whole, then run."""

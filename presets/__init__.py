"""Tuned parameter sets: data, with a reason at each number."""

"""Runs flow runs in processes that keep their models."""

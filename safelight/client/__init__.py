"""Asking the Prefect server."""

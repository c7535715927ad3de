"""Adapters to the libraries that do the work on pixels; one module each."""

"""Reads the requests of a batch from the files that people have."""

"""Reads from a picture how it was made, whoever made it, in the words of our own `generate`."""

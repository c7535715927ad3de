"""Upscalers and restorers of faces that people bring, of the architectures that spandrel knows."""

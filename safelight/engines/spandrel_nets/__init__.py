"""Upscalers that people bring, of the architectures that spandrel knows."""

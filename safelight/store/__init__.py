"""Artifacts kept by content, in a local folder or an S3-compatible bucket."""

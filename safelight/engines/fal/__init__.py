"""fal as an engine."""

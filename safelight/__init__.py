"""Image and video pipelines that can be trusted to finish: the library underneath."""

"""How a file was made: manifests, metadata inside files, replay."""

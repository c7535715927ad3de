"""Text-to-image models of the library diffusers: how they are loaded, changed and run."""

"""The stages of a training; pipelines do not offer them, since they work on no single picture."""

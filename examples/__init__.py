"""Sample media and the job that `make run` runs on them."""

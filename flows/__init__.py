"""One Prefect flow per preset; flows call stages and nothing else."""

"""One module per stage: its parameters and its Prefect task."""

"""REST over the Prefect API."""

"""The safelight command; talks to the Prefect API."""

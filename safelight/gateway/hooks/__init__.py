"""Web hooks: programs elsewhere are told that a job has ended."""

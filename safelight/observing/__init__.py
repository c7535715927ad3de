"""What is seen of Safelight from outside: log files, metrics, traces."""

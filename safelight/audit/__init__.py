"""What people, keys and runs did, line by line, so that a change of it shows."""

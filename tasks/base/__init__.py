"""What stages are made of, and how they are found."""

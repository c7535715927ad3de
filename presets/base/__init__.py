"""What presets are made of, and how they are found."""

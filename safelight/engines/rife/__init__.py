"""RIFE: draws frames between frames."""

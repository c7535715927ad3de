"""Real-ESRGAN: enlarges pictures."""

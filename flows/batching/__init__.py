"""What runs a batch: its requests, who runs them, what is laid out of them."""

"""Paths that the systems before Safelight answered, over the functions of the gateway's own."""

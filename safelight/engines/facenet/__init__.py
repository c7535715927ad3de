"""Whose face it is, by FaceNet."""

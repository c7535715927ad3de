"""Workflows of ComfyUI as files of the volume: found, read, described by a form."""

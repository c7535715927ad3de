"""Prompts that unfold: choices and wildcards become words."""

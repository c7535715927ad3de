"""The machine that engines run on: its device, its memory, what stays loaded."""

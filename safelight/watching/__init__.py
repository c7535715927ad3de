"""Folders that work by themselves: what is new is done once, by content, and put where asked."""

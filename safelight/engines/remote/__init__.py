"""Work that providers do: sent once, followed, paid for once, fetched."""

"""The page: rooms for people, as HTML over the same functions as the API."""

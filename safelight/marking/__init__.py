"""Signs what models drew (C2PA), and says of a file who signed it and whether it was changed."""

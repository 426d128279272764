"""Tables: rows of text read in pieces, columns described from them, cells as numbers and back in their units."""

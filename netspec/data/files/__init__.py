"""File formats of arrays and records; nothing here is ever unpickled."""

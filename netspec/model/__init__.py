"""A trained net that answers questions, and the pages of pictures that show its answers."""

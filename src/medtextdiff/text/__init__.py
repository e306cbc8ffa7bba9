"""Notes become features."""

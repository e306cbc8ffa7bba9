"""Image + note -> mask."""

"""Noise: denoisers and their training target. Knows nothing of masks or diseases."""

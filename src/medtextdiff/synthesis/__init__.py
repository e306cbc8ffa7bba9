"""Prompt -> image."""

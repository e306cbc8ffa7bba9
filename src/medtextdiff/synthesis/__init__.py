"""PROMPT -> IMAGE."""

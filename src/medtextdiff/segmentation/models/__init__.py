"""Segmenters: interchangeable parts, one file each."""

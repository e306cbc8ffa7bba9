"""Text encoders: interchangeable parts, one file each."""

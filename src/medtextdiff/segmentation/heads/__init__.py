"""From levels to logits: interchangeable parts, one file each."""

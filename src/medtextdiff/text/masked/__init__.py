"""Models that guess masked words: interchangeable parts, one file each."""

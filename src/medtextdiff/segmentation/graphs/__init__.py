"""A segmenter as graphs that other runtimes can run: what is traced, how it is checked, how it is used again."""

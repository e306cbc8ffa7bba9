"""Systems that make an image from a prompt, one file each."""

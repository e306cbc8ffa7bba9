"""How a level meets a note: interchangeable parts, one file each."""

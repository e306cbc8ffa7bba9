"""From a hospital's exports to documents: what the corpora of notes share."""

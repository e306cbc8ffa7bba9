"""Where clinical text comes from: one file per layout of a corpus."""

"""How fast, and in how much memory: the tables of docs/performance.md, on any machine. See `run.bench`."""

"""Results of a run: names and paths, content, and files that are written whole or not at all."""

"""Published architectures as JSON files, and their reader."""

"""What a plan needs, predicted from its architecture: arithmetic, memory, bytes sent. No torch at import."""

"""What becomes of a run while it runs and when it ends badly: status.json, signals, hangs."""

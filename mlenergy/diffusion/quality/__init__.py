"""Quality of outputs against a reference."""

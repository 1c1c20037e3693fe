"""What is known of a model, as data: families, listed models, architectures, files on the hub. No torch."""

"""Models as data: families, listed models, architectures, files in a folder or on the hub. No torch."""

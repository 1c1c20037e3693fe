"""Process groups and the key-value store that ranks share."""

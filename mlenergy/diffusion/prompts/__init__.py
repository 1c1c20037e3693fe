"""Prompts: their sources, and the deterministic sample that a run draws from them."""

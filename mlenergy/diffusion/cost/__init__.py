"""Costs of a plan, predicted from its architecture: FLOPs, memory, bytes sent. No torch at import."""

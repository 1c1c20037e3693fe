"""Which settings cost least: the Pareto front of seconds and joules per image, within a time budget."""

"""`mlenergy tune`: the Pareto front of seconds and joules per image, searched within a time budget."""

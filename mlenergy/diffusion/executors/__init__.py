"""Starts runs, here or through Slurm, for sweep and tune alike."""

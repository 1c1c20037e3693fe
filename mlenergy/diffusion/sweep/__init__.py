"""`mlenergy sweep`: many configurations, each in new processes, resumable. Imports no torch."""

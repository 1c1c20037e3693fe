"""The mends of xfuser's faults, one file a subject; xdit_faults.py is their list."""

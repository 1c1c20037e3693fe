"""Tiny random pipelines, one file a family: the weights of the tests and the demo.

They are built in the process, saved as any published model is, and then loaded by the same code.
"""

"""Families added since the first list, one file each: the family, its listed models, its tiny model.

models/families.py and models/listed.py join them with the first ones; no other file asks for one by name.
"""

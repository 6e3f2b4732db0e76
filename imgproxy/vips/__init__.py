"""The parts of `render.py`, where alone libvips is spoken to.

Importing this package forbids libvips, for the whole process, every loader but the few that are named in `opening.py`.
"""

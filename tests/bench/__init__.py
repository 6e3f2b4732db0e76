"""What is promised about speed and memory, measured: `make bench` (or `python -m tests.bench cold hits`).

Machines differ and are noisy, so every speed is a ratio of two things that were run in turn, in one run, and its median is told.
"""

"""``python -m scripts.benchmark``: every speed claim as a ratio in one run."""

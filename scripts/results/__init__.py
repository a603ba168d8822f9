"""``python -m scripts.results``: fits every trial and publishes what came out."""

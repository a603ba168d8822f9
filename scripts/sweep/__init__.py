"""``python -m scripts.sweep``: searches a sweep's options on this machine."""

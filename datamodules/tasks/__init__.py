"""Synthetic tasks; each publishes the optimum and a baseline."""

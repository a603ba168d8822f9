"""Sequences out of a model: sampling and search."""

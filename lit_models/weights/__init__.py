"""Checkpoints of this project and of others, in and out."""

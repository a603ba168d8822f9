"""Operators with an equation of their own that two or more architectures use unchanged."""

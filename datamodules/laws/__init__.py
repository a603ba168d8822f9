"""Exact mathematics behind the tasks' optima; numpy and torch alone."""

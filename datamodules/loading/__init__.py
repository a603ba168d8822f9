"""Loaders, splits and masks."""

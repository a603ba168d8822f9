"""Own-data commands on real files, beside the rivals that a run prints."""

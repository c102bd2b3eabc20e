"""``tuner.toml``: every key, its kind, its default, and what is said of a wrong one."""

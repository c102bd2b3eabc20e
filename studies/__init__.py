"""The search: which studies exist, which trials run next, what is remembered."""

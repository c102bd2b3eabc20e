"""Everything that is remembered: the only room that knows SQL and optuna's tables, locks and kept files."""

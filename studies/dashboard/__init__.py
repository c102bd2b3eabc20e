"""optuna-dashboard, and the pictures that it shows."""

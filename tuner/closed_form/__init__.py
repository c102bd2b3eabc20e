"""Readouts whose best weights follow from linear algebra: no steps, no learning rate, exact leave-one-out."""

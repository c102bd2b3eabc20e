"""Fitting readouts: all (trial, unit) columns of a layer at once."""

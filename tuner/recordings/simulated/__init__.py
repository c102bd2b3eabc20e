"""The recording with known answers."""

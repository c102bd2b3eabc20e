"""What runs next, how a round is trained, what of it is kept."""

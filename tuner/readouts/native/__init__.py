"""The fused steps of the readouts in C: how they are built, and how they are called."""

"""The THINGS ventral stream spiking dataset: normalised, and raw."""

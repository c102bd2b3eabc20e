"""HDF5: the generic recording, and files as other programs write them or accidents leave them."""

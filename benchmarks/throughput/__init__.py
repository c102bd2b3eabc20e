"""Three ways to train the same trials on the same features; see ``__main__``."""

"""Every way of predicting a recording beside every other, on recordings in a folder."""

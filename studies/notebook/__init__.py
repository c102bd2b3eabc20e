"""An experiment in a notebook: ``tuner.open``. What it does is what the commands do, with the same objects."""

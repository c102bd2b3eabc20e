"""What is written for people: figures, tables, encoders, images, the page."""

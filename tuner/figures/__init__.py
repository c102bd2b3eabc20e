"""Figures and tables for print and screen.

Every figure function takes plain arrays or tidy rows and returns a ``matplotlib`` ``Figure``; none
touches ``pyplot`` or shows a window. :func:`tuner.figures.style.save` writes one as PNG and SVG,
the same bytes every time. Matplotlib is loaded by the modules that draw, not by this package.
"""

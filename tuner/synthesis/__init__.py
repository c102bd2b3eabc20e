"""Images that neurons want: made, measured, and brought back to the animal."""

from __future__ import annotations

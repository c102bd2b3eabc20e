"""The closed loop: images go to the rig as a plain folder, recorded responses come back as scores.

:mod:`placement` says what is seen where, :mod:`choice` which images are shown to ask a unit what it
wants, :mod:`folder` writes and checks the folder, :mod:`answers` reads what was recorded, and
:mod:`score` and :mod:`figures` say how well it was predicted.
"""

from __future__ import annotations

"""Studies in a browser: slices as grey values, and the page's modules that draw them with windows and planes.

Used by the reader study and by the server's panel page. May import `radfound.study` only.
"""

from pathlib import Path

PAGE = Path(__file__).with_name("page")
"""Modules and style sheets that a page of its own builds on."""

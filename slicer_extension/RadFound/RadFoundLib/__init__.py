"""What the RadFound module of 3D Slicer is made of.

`client`, `jobs` and `outbox` need the standard library and `requests` only, so that they run and
are tested outside Slicer; `scene` and `render` need Slicer.
"""

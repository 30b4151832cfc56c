"""The package behind the RadFound module of 3D Slicer.

`net`, `session.jobs` and `session.outbox` need the standard library only, so that they run and
are tested outside Slicer; `scene` and `panel` need Slicer.
"""

"""What answers: the engine, the protocol that every backend keeps, and the backends.

`protocol` and `engine` know no torch, tokens or caches; those are a backend's own.
"""

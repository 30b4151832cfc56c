"""RadFound's own model behind the protocol: scheduler, sequences, KV caches, a fast path on CPUs.

The only part of the engine that imports torch and `radfound.model`.
"""

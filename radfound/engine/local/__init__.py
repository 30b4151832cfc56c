"""RadFound's own model behind the protocol: scheduler, sequences, KV caches, fast forward pass on CPUs."""

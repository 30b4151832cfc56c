"""RadFound: a vision-language model for radiology, and what it needs to answer about a study."""

import os

__version__ = "0.1.0"

# torch's threads wait for each other by spinning: beside other work that makes them several times
# slower. Spin a little, then sleep. libgomp reads this once, when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

"""RadFound: a vision-language model for radiology, and what it needs to answer about a study."""

__version__ = "0.1.0"

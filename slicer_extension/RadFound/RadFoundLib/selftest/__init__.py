"""The self test of *Reload and Test*, and its stub server."""

"""What *Reload and Test* does: the whole path, against a server that only pretends."""

"""Routes of learning from corrections, beside the training itself; imports the service and `radfound.teaching`."""

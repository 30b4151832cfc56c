"""RadFound as a MONAI Label app, with MONAI Label's routes and a few of its own."""

"""The MONAI Label app: RadFound behind MONAI Label's routes and a few of its own."""

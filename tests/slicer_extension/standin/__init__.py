"""What of 3D Slicer these tests need and no package brings: see the modules."""

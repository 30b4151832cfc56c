import sys
from pathlib import Path

# Slicer puts a module's folder on the path; so do its tests.
sys.path.insert(0, str(Path(__file__).parents[2] / "slicer_extension" / "RadFound"))

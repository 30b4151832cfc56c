"""Pointing tests of evidence maps, on phantoms with lesions at known positions."""

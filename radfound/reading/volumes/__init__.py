"""Volumes in one file, or a header and its data: NIfTI, NRRD, MetaImage."""

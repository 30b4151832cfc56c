"""Load volumes from one file, or from a header and data files: NIfTI, NRRD, MetaImage."""

"""Load DICOM files as images: headers, series, stacks of frames, pixels."""

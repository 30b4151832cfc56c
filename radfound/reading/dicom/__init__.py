"""DICOM files to images: headers, series, stacks of frames, pixels."""

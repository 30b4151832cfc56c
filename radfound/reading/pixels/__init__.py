"""Pixel data of DICOM in any transfer syntax to stored samples, and look-up tables on them.

Takes data sets of pydicom and knows nothing of files, series or places.
"""

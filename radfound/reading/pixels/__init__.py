"""Decode DICOM pixel data of any transfer syntax to stored samples, and apply look-up tables.

Works on pydicom data sets, independent of files, series and geometry.
"""

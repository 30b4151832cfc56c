"""Reports as DICOM objects: structured reports of drafts and of readers' texts, and evidence maps.

May import `radfound` modules without a model; highdicom, of the extra `server`, is imported when the first object is made.
"""

"""Routes of a server whose studies are in an archive: read-only proxy, list, reports and drafts.

May import what the routes beside it import, and `lib.pacs`.
"""

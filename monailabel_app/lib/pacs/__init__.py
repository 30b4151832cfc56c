"""Studies from an archive (PACS) by DICOMweb, and reports back into it.

`PacsDatastore` answers what the datastore of a folder answers, so services, strategies and trainers need
no special case; `Delivery` sends reports, and `Watcher` drafts them for new studies. May import
`studies` and `lifecycle` beside it, and `radfound`; the routes are in `routes/pacs`.
"""

"""Rating in the browser: the server, its page, rendered images, and the record of ratings."""

"""Where readers rate: the server, the pages it serves, the pictures on them, and the ratings it keeps."""

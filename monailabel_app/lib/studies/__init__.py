"""Studies as the server keeps them: the folder it serves, uploads, sessions."""

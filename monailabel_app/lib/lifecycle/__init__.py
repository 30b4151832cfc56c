"""Starting and stopping: what is left over, what is logged, what ends with the server."""

"""The doors for writing, over real sockets."""

"""A node's control socket: HTTP and JSON for its owner, on this machine."""

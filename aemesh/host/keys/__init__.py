"""A node's own keys, the one that is and the one that will be."""

"""A site's certificates: its CAs, what a node has of them, the user's own."""

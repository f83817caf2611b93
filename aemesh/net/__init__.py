"""trio and the network: streams, TLS, links, discovery."""

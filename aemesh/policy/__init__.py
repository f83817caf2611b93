"""Decisions over all peers, without I/O, clock or chance."""

"""One conversation, without I/O: bytes and times come in, bytes and events go out."""

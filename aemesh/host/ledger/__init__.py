"""What durable runs have finished, on the master's disk: rows in SQLite, and blobs."""

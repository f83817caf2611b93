"""The role of a worker: it announces itself, is held by a master, and runs jobs."""

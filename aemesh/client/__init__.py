"""The Python API: sync, over the control API of a running master."""

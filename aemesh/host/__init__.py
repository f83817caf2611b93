"""This machine: files, keys, trust and processes.  Its modules are imported by name.

Nothing is imported here, for `warden` must run before anything heavy is loaded.
"""

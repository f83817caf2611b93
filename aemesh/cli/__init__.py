"""The command line: words and tables, no logic."""

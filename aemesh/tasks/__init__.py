"""The few shapes of concurrent work in use, on trio."""

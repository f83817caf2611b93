"""``make bench``: what aemesh promises about time and memory, measured in the lab."""

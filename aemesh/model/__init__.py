"""The nouns of aemesh: frozen values that cross every border."""

"""What strangers may send, made up: by hypothesis, and by atheris (``make fuzz``)."""

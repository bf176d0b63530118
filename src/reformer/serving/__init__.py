"""A trained model behind HTTP: what it is asked (`requests`), what it answers (`service`), how (`server`)."""

"""The HTTP face of the server: a Flask application over the selector and the registry."""

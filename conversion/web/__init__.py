"""A static folder that runs a model in a browser."""

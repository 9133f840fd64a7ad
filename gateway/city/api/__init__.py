"""The HTTP API, a module for each group of paths."""

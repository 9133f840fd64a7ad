"""Payload formats: one module each, turning bytes into readings."""

"""Tests of the indices and grades."""

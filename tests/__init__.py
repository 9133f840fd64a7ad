"""Tests: they mirror the packages; `house` holds the repository itself together."""

"""The repository holds together: documents, locks, commands and packages say the same."""

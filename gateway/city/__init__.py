"""The city operations view: a FastAPI application over a store of readings."""

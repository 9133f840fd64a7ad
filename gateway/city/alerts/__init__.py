"""Alerts: events put together by cause, with where they may come from, until somebody has acknowledged them."""

"""Tests of SensorThings."""

"""The agent: one module a step of the way of a reading, and ``agent.py``, which reads like it."""

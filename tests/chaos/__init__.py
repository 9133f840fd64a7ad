"""Breaking things for real: the broker, the gateway and the database are killed at random, and nothing may be lost."""

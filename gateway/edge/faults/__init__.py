"""What tells a broken sensor from a true event: one module a fault."""

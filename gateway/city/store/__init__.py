"""Where the city view reads from: one small protocol, and a module for each store that answers it."""

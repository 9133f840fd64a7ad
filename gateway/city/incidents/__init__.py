"""Cases: from what is seen or reported to what has been put right."""

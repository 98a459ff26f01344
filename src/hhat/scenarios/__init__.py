"""Truth and observation together: what a method is tried on."""

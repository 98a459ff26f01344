"""What a real radio does wrong: frozen callables, clean -> dirty, with physical units in their names."""

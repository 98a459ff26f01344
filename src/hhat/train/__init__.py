"""Loops that turn a scenario or a user's file into weights with a card."""

"""Bare torch modules: real tensors in, real tensors out. What the numbers mean is said where they are used."""

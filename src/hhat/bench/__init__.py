"""Experiments: declared once, run cell by cell into a store, summarised with intervals, drawn on one page."""

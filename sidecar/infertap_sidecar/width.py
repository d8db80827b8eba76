"""How wide what people read may be."""

WIDTH_MAX = 100
"""Columns."""

"""Lenses: what a person points at, turned into a game."""

"""Explorers: which masks to ask for, and what their values say."""

"""Sampling of masks, and tables of single effects computed from them. Independent of models and explorers."""

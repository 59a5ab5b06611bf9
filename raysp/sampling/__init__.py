"""Which masks to draw, and tables over masks. Knows nothing of models or explorers."""

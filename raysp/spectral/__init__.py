"""Sparse functions of masks in their Fourier form: pure numerics on numpy arrays, no files, no models."""

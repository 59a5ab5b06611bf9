"""Sparse functions of masks in Fourier form: pure numerics on numpy arrays, without files or models."""

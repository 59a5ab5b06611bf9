"""Homes of raysp for tests."""

import os
from pathlib import Path


def with_models(folder):
    """Make `folder` a home that shares the dequantised models of this machine; the folder."""
    kept = Path(os.environ.get("RAYSP_HOME", "~/.raysp")).expanduser() / "models"
    kept.mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to(kept)
    return folder

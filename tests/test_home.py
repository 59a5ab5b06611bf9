"""Caches lie in the home, or in the temporary folder where the home is read-only; paths that cannot be paths are refused."""

import os

import pytest

from raysp.blobs import read_bytes
from raysp.errors import UserError
from raysp.home import cache_folder, home, store_path


@pytest.fixture
def read_only_home(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")  # no folder can be made below a file, not even by root
    monkeypatch.setenv("RAYSP_HOME", str(tmp_path / "file" / "home"))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_cache_lies_in_the_home(temporary):
    assert cache_folder("kept") == home() / "kept"
    assert (home() / "kept").is_dir()
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("read_only_home")
def test_a_cache_lies_in_the_temporary_folder_where_the_home_is_read_only(temporary):
    folder = cache_folder("kept")
    assert folder == temporary / f"raysp-{os.getuid()}" / "kept"
    assert folder.is_dir()
    assert folder.parent.stat().st_mode & 0o077 == 0
    assert cache_folder("kept") == folder


@pytest.mark.usefixtures("read_only_home")
def test_a_cache_that_others_may_write_into_is_not_used(temporary):
    folder = temporary / f"raysp-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UserError, match=r"RAYSP_HOME: .* cannot be written to, nor can the temporary folder; set RAYSP_HOME to a folder"):
        cache_folder("kept")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a" * 300, "too long"),
        ("a/" * 3000, "too long"),
        ("é" * 200, "too long"),
        ("a\0b", "a NUL character"),
        ("~nobody-at-all/x", "the home folder of an unknown user"),
    ],
)
def test_a_text_that_no_file_system_takes_as_a_path_is_refused(text, problem):
    with pytest.raises(UserError, match=rf"^store: .*{problem}"):
        store_path(text)


def test_an_endless_device_is_not_read():
    with pytest.raises(OSError, match="is a device"):
        read_bytes("/dev/zero")
    assert read_bytes("/dev/null") == b""

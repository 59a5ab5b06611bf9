"""A file that a person named is written whole, and nothing but a regular file is replaced."""

import os
import stat
import threading
from pathlib import Path

import pytest

from raysp.errors import UserError
from raysp.output_file import write_output


def test_a_file_is_made_and_replaced_and_keeps_its_permissions(tmp_path):
    place = tmp_path / "out.html"
    write_output("report", place, b"one")
    place.chmod(0o640)
    write_output("report", place, b"two")
    assert place.read_bytes() == b"two"
    assert stat.S_IMODE(place.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [place]


def test_a_symbolic_link_stays_and_leads_to_what_was_written(tmp_path):
    link, place = tmp_path / "link.html", tmp_path / "there.html"
    link.symlink_to(place.name)
    for content in (b"one", b"two"):
        write_output("report", link, content)
        assert link.is_symlink()
        assert place.read_bytes() == content


def test_a_fifo_and_a_device_are_written_to(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    found = []
    reader = threading.Thread(target=lambda: found.append(fifo.read_bytes()))
    reader.start()
    write_output("report", fifo, b"page")
    reader.join()
    assert found == [b"page"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    write_output("report", "/dev/null", b"page")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path):
    for place in (tmp_path, tmp_path / "none" / "out"):
        with pytest.raises(UserError, match=r"report: .* cannot be written"):
            write_output("report", place, b"page")
    assert not list(tmp_path.iterdir())

"""Tests that ask one service on one Ray, as people do; a package, so that the fixture of that Ray ends with the last of them."""

"""What rows are stamped with: the time, and the version of raysp."""

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def now() -> datetime:
    """The time in UTC, without a time zone, as all columns have it."""
    return datetime.now(UTC).replace(tzinfo=None)


def version() -> str:
    """The installed version of raysp."""
    try:
        return installed("raysp")
    except PackageNotFoundError:
        return "0"

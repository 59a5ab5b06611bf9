"""Pages about runs: one self-contained HTML file each. They read the store and know nothing of models or Ray."""

from raysp.report.page import write_report, write_set_report

__all__ = ["write_report", "write_set_report"]

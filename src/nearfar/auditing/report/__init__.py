"""The reports: self-contained HTML pages that open without network."""

from nearfar.auditing.report.audit import render_audit
from nearfar.auditing.report.page import figure_bytes
from nearfar.auditing.report.quickstart import Example, Report, render_report

__all__ = ["Example", "Report", "figure_bytes", "render_audit", "render_report"]

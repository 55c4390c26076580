"""Reports: one self-contained HTML page from a run folder, and one over several.

``build_report(run_dir)`` reads only that folder and writes ``report.html`` into it;
``build_group_report(run_dirs, out)`` sets runs beside each other. What a page holds is listed in
``sections.yaml``.
"""

from lab.report.document import HTMLDocument
from lab.report.group import build_group_report
from lab.report.page import build_report, report_document

__all__ = ["HTMLDocument", "build_group_report", "build_report", "report_document"]

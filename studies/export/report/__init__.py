"""One self-contained page that shows a search: maps of all studies, each study behind its cell."""

from __future__ import annotations

from studies.export.report.content import RecordingSummary, RegionSummary, StudyDetails
from studies.export.report.page import write_report

__all__ = ["RecordingSummary", "RegionSummary", "StudyDetails", "write_report"]

"""One offline page that says what a model ignores, for someone who has to decide about it."""

from svae.reporting.building import ReportSettings, report

__all__ = ["ReportSettings", "report"]

"""The morning report: what a run or a night did, for people (Markdown, HTML) and for Prometheus."""

from pipeline.report.write import WrittenReport, write_report

__all__ = ["WrittenReport", "write_report"]

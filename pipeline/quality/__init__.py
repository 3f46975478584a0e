"""The quality gate of a night: how far relaxed texts are from strict ones, and whether that is too far."""

from pipeline.quality.gate import QualityReport, check_quality

__all__ = ["QualityReport", "check_quality"]

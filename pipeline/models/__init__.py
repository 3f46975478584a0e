"""Where a target model comes from: a folder, a package, or the hub; always served from a local folder."""

from pipeline.models.resolve import ModelSource, resolve_model

__all__ = ["ModelSource", "resolve_model"]

"""Any domain in tables, described by YAML: CSV, TSV, JSON lines and Parquet; see docs/new-domain.md."""

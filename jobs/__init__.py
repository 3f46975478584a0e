"""Entry points: `python -m jobs.X`. The only place that reads the configuration, prints and exits."""

from pipeline.environment import silence_telemetry

silence_telemetry()  # here, because libraries that a job imports read these variables at import

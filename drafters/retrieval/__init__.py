"""Retrieval of continuations and their choice: native code over all rows of a step."""

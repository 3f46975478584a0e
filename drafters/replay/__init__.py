"""Offline study of drafters: recorded texts replayed at strict acceptance (`python -m drafters.replay`)."""

"""Embeddings to the files that CTR libraries read."""

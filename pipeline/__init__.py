"""Pure steps from raw data to published knowledge. No step knows which executor runs it."""

"""The night: what changed since the snapshot in force is generated, the rest is carried over."""

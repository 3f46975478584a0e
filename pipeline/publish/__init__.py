"""Published snapshots of the knowledge: written, validated, put in force in one step, rolled back, pruned."""

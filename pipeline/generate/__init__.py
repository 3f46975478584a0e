"""Generation: shards of the plan handed to Ray workers, finished parts written by them."""

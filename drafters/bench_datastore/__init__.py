"""What the token datastore costs: disk, memory, building, opening, drafting (`make bench-datastore`)."""

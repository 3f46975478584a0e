"""`make bench`: decoding methods side by side on one machine, in one run, on the same prompts."""

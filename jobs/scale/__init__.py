"""How the work scales: measured with one and two workers, and played through for many more."""

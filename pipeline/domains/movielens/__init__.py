"""MovieLens: its published forms, its titles and its words."""

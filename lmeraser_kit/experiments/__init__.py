"""One strict run, its results, their agreement with the reference, and the report."""

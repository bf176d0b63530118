"""A label for each sequence: what genes do, splice junctions, families."""

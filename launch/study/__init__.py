"""What sweeps and searches have in common: trials, packs of them, their jobs and what came out."""

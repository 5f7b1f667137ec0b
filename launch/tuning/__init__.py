"""A search for settings: Optuna asks, ensembles are trained, no test image is looked at."""

"""The loop, the step and its parts."""

"""The console script `stlm`: one name for the commands of the project."""

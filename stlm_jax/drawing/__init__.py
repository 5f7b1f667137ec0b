"""Pictures of maps, in the same colours everywhere."""

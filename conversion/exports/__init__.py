"""What the exports share."""

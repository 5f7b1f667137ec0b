"""Any number of images through a finished model, as a production line needs it."""

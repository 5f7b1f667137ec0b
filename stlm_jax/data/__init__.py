"""Reading anomaly-detection data: folders, images, textures, the training pipeline, a demo set."""

"""What a trained model is worth: metrics, thresholds, error rates."""

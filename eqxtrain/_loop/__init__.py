"""What runs passes: `fit`, `evaluate`, `predict`, `forecast`."""

"""What training and serving must do alike: feature code, feature schema, bins and the model itself."""

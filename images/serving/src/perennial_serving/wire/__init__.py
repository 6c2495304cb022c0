"""What gRPC carries: `inference.proto`, and the code that `make render` writes from it."""

"""What stands between a model and the Trainer: repairs of Lightning, rates, accumulation."""

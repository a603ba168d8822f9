"""What judges a model: torchmetrics objects and the means of a stage."""

"""What a person runs beside the command."""

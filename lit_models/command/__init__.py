"""The command ``lit-models``, from its line to its exit code."""

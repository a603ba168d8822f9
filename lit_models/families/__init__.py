"""What the models of one family share, as bases of their LightningModules."""

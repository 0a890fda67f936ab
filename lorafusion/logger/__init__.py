"""Where numbers go while training."""

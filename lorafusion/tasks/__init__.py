"""What run.py can do: one file each, a function of the config."""

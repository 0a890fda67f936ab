"""Weights from elsewhere: readers that run nothing, and key maps from the original networks' state dicts to ours."""

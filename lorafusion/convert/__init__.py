"""Weights from elsewhere: key maps from the original networks' state dicts to ours."""

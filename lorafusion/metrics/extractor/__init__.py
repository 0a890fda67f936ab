"""Networks whose features metrics compare; a metric/extractor yaml names one. See ``lorafusion.metrics.features``."""

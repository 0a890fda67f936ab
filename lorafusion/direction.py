"""Which way a measured value is better, by its name in metrics.csv and metrics.json."""

MORE_IS_BETTER = {"agreement", "inception_score", "precision", "recall", "recognised", "images_per_s"}


def more_is_better(name: str) -> bool:
    """Losses, distances and costs are better small; shares and scores are better large."""
    return name in MORE_IS_BETTER or name.startswith("classifier_score_")

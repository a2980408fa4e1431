"""What several objectives ask of their hyperparameters."""


def check_label_smoothing(label_smoothing: float, *, positive: bool = False) -> None:
    """Raise ValueError unless 0 <= eps < 0.5, or 0 < eps < 0.5 where `positive`."""
    if not (0 <= label_smoothing < 0.5 and (label_smoothing > 0 or not positive)):
        least = "above 0" if positive else "at least 0"
        raise ValueError(
            f"label_smoothing is {label_smoothing}; give a share of wrong labels that is {least} "
            "and below 0.5, for example 0.1."
        )


def check_within(value: float, name: str, low: float, high: float) -> None:
    """Raise ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; give a number from {low:g} to {high:g}.")

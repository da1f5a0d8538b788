"""Check and measure on a GPU what has never run on one, within a given time."""

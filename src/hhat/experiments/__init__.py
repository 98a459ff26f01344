"""One file per figure or table; each holds an `EXPERIMENT`, and a line in `hhat.registry` gives it its name."""

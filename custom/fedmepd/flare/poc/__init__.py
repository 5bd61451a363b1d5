"""A federation of real processes on one machine, by FLARE's POC mode."""

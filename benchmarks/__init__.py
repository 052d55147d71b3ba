"""Speed, as ratios and rates measured in one run: `make bench`."""

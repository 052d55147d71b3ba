"""What stays: columns, candidates, decisions, recipes and the funnel. Pure numpy over columns."""

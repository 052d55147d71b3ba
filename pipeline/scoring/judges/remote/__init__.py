"""Judges that an endpoint lends its model to: nothing is loaded here, and every answer is typed."""

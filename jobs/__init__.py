"""How many workers do it: the command line, and Ray. The only package that imports Ray."""

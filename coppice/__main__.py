"""`python -m coppice` is `coppice`."""

from jobs.cli import main

if __name__ == "__main__":
    main()

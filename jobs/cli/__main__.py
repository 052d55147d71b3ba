"""`python -m jobs.cli` is `coppice`."""

from jobs.cli.ending import main

if __name__ == "__main__":
    main()

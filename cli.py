"""Runs bnfold from a checkout, with nothing installed but its dependencies: `python cli.py optimize MODEL`."""

from bnfold.commands import main

if __name__ == "__main__":
    main()

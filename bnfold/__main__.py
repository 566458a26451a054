"""`python -m bnfold` is `bnfold`."""

from bnfold.commands import main

if __name__ == "__main__":
    main()

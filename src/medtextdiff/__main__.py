"""`python -m medtextdiff` is `medtextdiff`."""

from medtextdiff.cli import main

if __name__ == "__main__":
    main()

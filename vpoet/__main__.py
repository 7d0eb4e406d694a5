"""``python -m vpoet``: the ``vpoet`` command, where no script of that name is on the path."""

from vpoet import cli

if __name__ == "__main__":
    cli.main()

"""Run `radfound` from a checkout: `python -m radfound.cli`."""

from radfound.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

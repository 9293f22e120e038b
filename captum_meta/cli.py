"""The command `captum-meta`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from captum_meta import __version__

_USAGE = """\
usage: captum-meta COMMAND ...

  demo                  explain a classifier with the shipped explainers, beside Captum's own methods: a minute
  explain               explain the rows of a csv or parquet file by any model, into a folder
  benchmark             compare methods at equal cost on the held-out models: --quick in minutes, all in an hour
  benchmark COMPARISON  a further comparison, such as `training`: `captum-meta benchmark --help` names them
  fit, validate, test, predict
                        meta-train a learner on synthetic models, or on your own; measure it; explain (LightningCLI)

Every command has its own --help. captum-meta --version tells the version.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = arguments[0] if arguments else "--help"
    if command == "demo":
        from captum_meta.demo import main as run

        run(arguments[1:])
    elif command == "explain":
        from captum_meta.explain import main as run

        run(arguments[1:])
    elif command == "benchmark":
        from captum_meta.benchmark.cli import main as run

        run(arguments[1:])
    elif command in ("fit", "validate", "test", "predict"):
        from captum_meta.training.cli import main as run

        run(arguments)
    elif command == "--version":
        print(f"captum-meta {__version__}")
    elif command in ("-h", "--help"):
        print(_USAGE)
    else:
        print(f"captum-meta: there is no command {command!r}\n\n{_USAGE}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

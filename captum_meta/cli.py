"""The command `captum-meta`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from captum_meta import __version__

_USAGE = """\
usage: captum-meta COMMAND ...

  demo             explain a classifier with this package and with Captum, and compare: seconds
  explain          explain all rows of a .csv or .parquet file, with a model of yours
  benchmark        compare methods at equal cost: --quick takes 3 minutes, the whole an hour
  benchmark NAME   a further comparison; `captum-meta benchmark --help` names them all
  fit              meta-train a learner on synthetic models or on your own (LightningCLI)
  validate, test   measure a learner
  predict          write a learner's attributions into a file

Every command has its own --help. captum-meta --version prints the version.
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

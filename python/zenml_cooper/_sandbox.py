"""The process that runs the commands of RUN for the native engine: `python -I -S -B _sandbox.py PATH_OF_CORE`.

It has one thread and no module but the native one, whose function makes namespaces, starts commands in them and waits.
It is a new process and not a fork: a fork of a program with threads, as ZenML is one, may do next to nothing.
"""

import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader


def main() -> None:
    """Serves whoever is at the other end of standard input."""
    name = "zenml_cooper._core"
    spec = spec_from_loader(name, ExtensionFileLoader(name, sys.argv[1]))
    if spec is None or spec.loader is None:
        sys.exit(f"{sys.argv[1]} cannot be loaded")
    core = module_from_spec(spec)
    spec.loader.exec_module(core)
    core._serve_sandbox()


if __name__ == "__main__":
    main()

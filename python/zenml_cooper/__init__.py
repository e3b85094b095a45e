"""Container image builders for ZenML, with a native core.

Importing this package imports neither ZenML nor the native module; both are loaded by what needs them.

    >>> import zenml_cooper
    >>> outcome = zenml_cooper.build(context=".", tags=["localhost:5000/app:1"], push=True)  # doctest: +SKIP
    >>> outcome.image  # doctest: +SKIP
    'localhost:5000/app@sha256:...'
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zenml_cooper import aio, exceptions
    from zenml_cooper._build import build
    from zenml_cooper._contexts import context_digest, context_entries, context_report, context_suggest, context_why
    from zenml_cooper._core import CancelHandle
    from zenml_cooper.context import CooperBuildContext
    from zenml_cooper.exceptions import CooperError
    from zenml_cooper.outcome import Outcome

# Also where only these files were copied, without the package's metadata.
__version__ = "0.1.0"

__all__ = [
    "CancelHandle",
    "CooperBuildContext",
    "CooperError",
    "Outcome",
    "__version__",
    "aio",
    "build",
    "context_digest",
    "context_entries",
    "context_report",
    "context_suggest",
    "context_why",
    "exceptions",
]

# Name -> (module, attribute of it); no attribute: the module itself.
_LAZY = {
    "CancelHandle": ("zenml_cooper._core", "CancelHandle"),
    "CooperBuildContext": ("zenml_cooper.context", "CooperBuildContext"),
    "CooperError": ("zenml_cooper.exceptions", "CooperError"),
    "Outcome": ("zenml_cooper.outcome", "Outcome"),
    "aio": ("zenml_cooper.aio", None),
    "build": ("zenml_cooper._build", "build"),
    "context_digest": ("zenml_cooper._contexts", "context_digest"),
    "context_entries": ("zenml_cooper._contexts", "context_entries"),
    "context_report": ("zenml_cooper._contexts", "context_report"),
    "context_suggest": ("zenml_cooper._contexts", "context_suggest"),
    "context_why": ("zenml_cooper._contexts", "context_why"),
    "exceptions": ("zenml_cooper.exceptions", None),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _LAZY[name]
    value: Any = import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

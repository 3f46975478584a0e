"""Packages that only some configurations need: missing ones are named before any work is done."""

from importlib.util import find_spec

from pipeline.errors import ConfigError

# What vLLM imports for a drafter besides what `make setup` installs, and what installs it.
DRAFTER_PACKAGES = {"suffix": ("arctic_inference", "arctic-inference", "make bench-tools")}


def require_drafter_package(drafter: str) -> None:
    """Raise `ConfigError` if `drafter` needs a package that is not installed."""
    module, package, remedy = DRAFTER_PACKAGES.get(drafter, ("", "", ""))
    if module and find_spec(module) is None:
        raise ConfigError(f"drafter={drafter}: the package {package} is not installed; `{remedy}` does it")

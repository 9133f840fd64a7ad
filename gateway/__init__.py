"""citygate: an edge gateway for a town and its countryside."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("citygate")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

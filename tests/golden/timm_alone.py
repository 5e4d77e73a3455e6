"""timm without torchvision, of which it wants names but whose code no test reaches.

torchvision is built for one version of torch, which need not be the one installed;
timm imports it for frozen batch norms and image transforms. `import_timm()` gives it
modules of that name in which every name is an empty class.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types


def import_timm():
    """The timm module; raises ModuleNotFoundError where it is not installed."""
    if "timm" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return importlib.import_module("timm")
    finder = _Finder()
    sys.meta_path.append(finder)
    try:
        return importlib.import_module("timm")
    finally:  # others must not take it for the real one
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]


class _Named(type):
    """A class whose attributes are their own names, as an enumeration's would be."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Module(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        pass

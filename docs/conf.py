"""Sphinx configuration; the API page lists whatever the package holds."""

import importlib
import inspect
import pkgutil
from typing import Any

import svae

project = "svae"
author = "The svae authors"
copyright = f"2026, {author}"
release = svae.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "_tables"]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of a named tuple are described once, with the class

html_theme = "furo"
html_title = "svae"
html_static_path = ["_static"]
html_css_files = ["wide.css"]  # tables of many columns

# The order of reading; what is not named here follows in the order of the alphabet.
ORDER = [
    *("latent", "factorization", "data", "sketches", "nets", "heads", "priors", "likelihoods"),
    *("flows", "models", "guides", "sites", "elbo", "independence", "compilation", "training"),
    *("judge", "metrics", "plots"),
]


def _modules() -> list[str]:
    names = [
        module.name
        for module in pkgutil.walk_packages(svae.__path__, "svae.")
        if not module.name.rpartition(".")[2].startswith("_")
    ]

    def position(name: str) -> tuple[int, str]:
        family = name.split(".")[1]
        return (ORDER.index(family) if family in ORDER else len(ORDER), name)

    return sorted(names, key=position)


def _public_names() -> list[str]:
    lines = ["| name | what it is |", "|---|---|"]
    for name in svae.__all__:
        value = getattr(svae, name)
        home = value.__name__ if inspect.ismodule(value) else f"{value.__module__}.{name}"
        role = "mod" if inspect.ismodule(value) else "obj"
        summary = (inspect.getdoc(value) or "").partition("\n")[0]
        lines.append(f"| {{py:{role}}}`svae.{name} <{home}>` | {summary} |")
    return lines


def _fill_api_page(app: Any, docname: str, source: list[str]) -> None:
    if docname != "api":
        return
    lines = [*source[0].splitlines(), "", *_public_names(), ""]
    for name in _modules():
        # A package only gathers what its modules define; those follow.
        options = ["   :no-members:"] if hasattr(importlib.import_module(name), "__path__") else []
        lines += [f"## `{name}`", "", "```{eval-rst}", f".. automodule:: {name}", *options]
        lines += ["```", ""]
    source[0] = "\n".join(lines)


def _skip(app: Any, what: str, name: str, obj: object, skip: bool, options: Any) -> bool | None:
    """Leaves out the fields of named tuples, whose docstring is "Alias for field number 0"."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app: Any) -> None:
    """Registers the two hooks above."""
    app.connect("source-read", _fill_api_page)
    app.connect("autodoc-skip-member", _skip)

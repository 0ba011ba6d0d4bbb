"""What every test stands on: seeds, the folder of real data, and nothing left behind.

No module of ours is imported up here: jaxtyping instruments the package when pytest is configured,
which is after this file has been read.
"""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

os.environ["MPLBACKEND"] = "Agg"  # also for the processes that tests start

# A slow machine is no failure of the code, and a failure should come back on the next run.
hypothesis.settings.register_profile("svae", deadline=None, derandomize=True)
hypothesis.settings.load_profile("svae")


def _data_root() -> Path:
    return Path(os.environ.get("SVAE_DATA", "data"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test marked ``data`` where the folder of real data is absent."""
    if item.get_closest_marker("data") and not _data_root().is_dir():
        pytest.skip(f"needs real data: no folder {_data_root()}; set $SVAE_DATA")


@pytest.fixture
def data_root() -> Path:
    """Folder of the real data sets; only for tests marked ``data``."""
    return _data_root()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  umap and scikit-learn read the global state
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    yield
    # Only what the test itself has imported: neither library is loaded for the sake of a cleanup.
    if "pyro" in sys.modules:
        sys.modules["pyro"].clear_param_store()
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    import svae

    doctest_namespace.update(torch=torch, np=np, svae=svae)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch, whatever the machine has, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

"""Loading of whatever a ``save`` wrote, by what its file says it is."""

from pathlib import Path
from typing import Any

from svae import models
from svae.bridges import files
from svae.saving import read_json

__all__ = ["load"]

_RESTORE = {
    "svae.SVAE": models.restore,
    "svae.ConceptBridge": files.restore,
    "svae.InvarianceBridge": files.restore_invariance,
    "svae.TranslationBridge": files.restore_translation,
    "svae.MeanTranslator": files.restore_translation,
}


def load(folder: str | Path, **parts: Any) -> Any:
    """Loads what a model's ``save`` wrote, in evaluation mode on the CPU; nothing is unpickled.

    Args:
        folder: The folder that was written.
        parts: What is not from this package and so not in the folder: ``model`` and ``guide`` of
            an :class:`svae.SVAE`; ``frozen`` and ``decoder`` of a :class:`svae.ConceptBridge`;
            ``frozen`` and ``autoencoder`` of a :class:`svae.InvarianceBridge`; ``source``,
            ``target`` and ``view`` of a :class:`svae.TranslationBridge` or a
            :class:`svae.bridges.MeanTranslator`.

    Returns:
        The model or bridge that was saved.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged or belongs to another architecture, or a part of the
            user's own is not given.
        TypeError: If a part is given that such a model does not have.
    """
    config = read_json(Path(folder) / "model.json")
    kind = config.get("class") if isinstance(config, dict) else None
    restore = _RESTORE.get(str(kind), models.restore)
    return restore(folder, **parts)

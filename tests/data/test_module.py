"""The data module under Lightning's Trainer: what the model sees, also after a resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from svae.data import ArrayData, ArraySet, Batch, BatchLoader, Digits, Mixture

N, BATCH = 40, 8


def numbered(augment: Any = None, batch_size: int = BATCH) -> ArrayData:
    x = torch.arange(N, dtype=torch.uint8)[:, None].repeat(1, 2)
    part = ArraySet(x, torch.arange(N) % 2)
    return ArrayData(part, part, part, ("a", "b"), batch_size=batch_size, seed=9, augment=augment)


class Watcher(LightningModule):
    """Learns nothing and writes down what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.trained: list[tuple[int, list[int]]] = []
        self.validated: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        assert batch.x.dtype == torch.float32
        assert batch.factors is None
        numbers = (batch.x[:, 0] * 255).round().int().tolist()
        self.trained.append((self.trainer.current_epoch, numbers))
        return self.layer(batch.x).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated.append(batch.x)
        self.log("score", float(self.trainer.current_epoch), batch_size=len(batch.x))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def trainer(folder: Path, epochs: int, callbacks: list[Callback] | None = None) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def test_training_shuffles_by_epoch_and_validation_is_fixed(tmp_path: Path) -> None:
    watcher, data = Watcher(), numbered()
    trainer(tmp_path, 3).fit(watcher, data)
    loader = BatchLoader(data.train, BATCH, shuffle=True, seed=9)
    expected = []
    for epoch in range(3):
        expected += [(epoch, batch.tolist()) for batch in loader.order(epoch).split(BATCH)]
    assert watcher.trained == expected
    assert torch.equal(torch.cat(watcher.validated), data.validation.floats().repeat(3, 1))


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
@pytest.mark.parametrize("when", ["step 7", "step 5", "step 10", "epoch", "validation", "last"])
def test_resume_sees_what_an_uninterrupted_run_sees(when: str, tmp_path: Path) -> None:
    callback = {
        "epoch": ModelCheckpoint(tmp_path, save_top_k=-1, save_on_train_epoch_end=True),
        "validation": ModelCheckpoint(tmp_path, monitor="score", mode="max"),
        "last": ModelCheckpoint(tmp_path, save_last=True),
    }.get(when)
    if callback is None:
        every = int(when.split()[1])
        callback = ModelCheckpoint(tmp_path, every_n_train_steps=every, save_top_k=-1)
    whole = Watcher()
    trainer(tmp_path, 4).fit(whole, numbered())
    trainer(tmp_path, 2, [callback]).fit(Watcher(), numbered())
    for path in sorted(tmp_path.glob("*.ckpt")):
        step = torch.load(path, weights_only=True)["global_step"]
        resumed = Watcher()
        trainer(tmp_path, 4).fit(resumed, numbered(), ckpt_path=path, weights_only=True)
        assert resumed.trained == whole.trained[step:]


def test_augment_acts_in_training_only(tmp_path: Path) -> None:
    watcher = Watcher()
    data = numbered(augment=lambda x: x.flip(0))
    trainer(tmp_path, 1).fit(watcher, data)
    first = data.train_dataloader().order(0)[:BATCH]
    assert watcher.trained[0][1] == first.flip(0).tolist()
    assert torch.equal(watcher.validated[0], data.validation.floats(BATCH))
    assert torch.equal(data.on_after_batch_transfer((data.test.x, None), 0).x, data.test.floats())


def test_training_batches_are_of_one_size_unless_there_is_only_one() -> None:
    assert [len(batch.x) for batch in numbered(batch_size=15).train_dataloader()] == [15, 15]
    assert [len(batch.x) for batch in numbered(batch_size=15).val_dataloader()] == [15, 15, 10]
    assert [len(batch.x) for batch in numbered(batch_size=50).train_dataloader()] == [40]


def test_sets_are_binarised_and_mixed_by_their_arguments() -> None:
    mixture = Mixture(balanced=True)
    data = Digits(mixture=mixture, binarise=True)
    assert data.train_dataloader().mixture is mixture
    assert data.binarise
    assert set(data.test.floats().unique().tolist()) == {0.0, 1.0}
    # A pixel is 1 as often as it is bright.
    grey = Digits().test.floats().mean()
    assert abs(data.test.floats().mean() - grey) < 0.01
    assert len(data.train.x.unique()) > 2  # drawn anew for every batch

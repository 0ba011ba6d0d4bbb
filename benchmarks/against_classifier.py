"""Does the supervised VAE classify as well as a plain classifier?

Question: what does the generative half cost in accuracy?
Expectation: nothing beyond 0.1 points, with the same encoder, batches, schedule and epochs.
Cost: about half of the experiment's training.

    python benchmarks/against_classifier.py --dataset mnist --seed 0 --out runs/classifier
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

import svae
from svae.factorization import in_batches
from svae.nets import ConvEncoder
from svae.training import one_cycle, quiet

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from experiments.mnist_svae import load_data, say, writable  # noqa: E402


class Classifier(pl.LightningModule):
    """The encoder of the supervised VAE with one linear layer on top, trained by cross-entropy."""

    def __init__(self, encoder: ConvEncoder, n_classes: int, learning_rate: float = 2e-3) -> None:
        super().__init__()
        self.net = nn.Sequential(encoder, nn.Linear(encoder.n_features, n_classes))
        self.learning_rate = learning_rate

    def training_step(self, batch: Any, _: int) -> Tensor:
        """Cross-entropy of one batch."""
        return functional.cross_entropy(self.net(batch.x), batch.y)

    def validation_step(self, batch: Any, _: int) -> None:
        """Accuracy on the validation set."""
        hits = (self.net(batch.x).argmax(-1) == batch.y).float().mean()
        self.log("validation/accuracy", hits, batch_size=len(batch.x))

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimizer and schedule of the supervised VAE."""
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=1e-4)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: one_cycle(s / total))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Trains and tests the classifier; gives what ``metrics.json`` holds."""
    parser = argparse.ArgumentParser(description="A plain classifier with the SVAE's encoder.")
    parser.add_argument("--dataset", default="auto")
    parser.add_argument("--data-root")
    parser.add_argument("--out", default="runs/classifier")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="default", choices=["default", "best"])
    parser.add_argument("--max-epochs", type=int)
    parser.set_defaults(n_labels=None)  # an option of the experiment that this has not
    options = parser.parse_args(arguments)
    out = writable(Path(options.out))
    start = time.perf_counter()
    data, preset = load_data(options)
    pl.seed_everything(options.seed, workers=True, verbose=False)
    # The SVAE spends only the first phase on its encoder, so that is what the classifier gets.
    epochs = max(1, round((options.max_epochs or preset.max_epochs) * (1 - preset.flow_share)))
    model = Classifier(ConvEncoder(data.x_shape, width=preset.width), data.n_classes)
    with quiet():
        trainer = pl.Trainer(
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=100.0,
            use_distributed_sampler=False,
            accelerator="auto",
            devices=1,
        )
        trainer.fit(model, data)
    batch = data.test.batch(torch.arange(len(data.test)))
    x = batch.x.float() / 255
    logits = in_batches(model.cpu().eval().net, x)
    accuracy = svae.metrics.accuracy(logits, batch.y)
    metrics = {
        "dataset": data.name,
        "preset": options.preset,
        "seed": options.seed,
        "max_epochs": epochs,
        "test_accuracy": accuracy.value,
        "test_accuracy_low": accuracy.low,
        "test_accuracy_high": accuracy.high,
        "seconds_total": round(time.perf_counter() - start, 1),
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    say(f"plain classifier, {data.name}: accuracy {accuracy.value:.4f}")
    return metrics


if __name__ == "__main__":
    main()

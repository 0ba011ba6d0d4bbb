"""Models of the library pythae, trained and drawn from by its own API (extra ``bench``)."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.peers.common import Gaussian, Sizes, answering
from benchmarks.peers.plain import VAEClassifier

__all__ = ["PythaeVAE"]


class PythaeVAE(VAEClassifier):
    """pythae's VAE, or its VAE whose prior is a masked autoregressive flow fitted afterwards.

    The linear classifier on draws of its latent is fitted when the VAE is: what it reads is the
    class part, as of :class:`VAEClassifier`. The flow has as many epochs as the VAE, after it.

    References:
        Pythae: Unifying Generative Autoencoders in Python (Chadebec et al., 2022),
        https://arxiv.org/abs/2206.08309

    Args:
        sizes: What every model is built with.
        flow_prior: Whether new pictures are drawn through its ``MAFSampler``.
    """

    def __init__(self, sizes: Sizes, flow_prior: bool = False) -> None:
        super().__init__(sizes)
        self.flow_prior = flow_prior
        self._sampler: Any = None

    def fit(self, data: Any, epochs: int, seed: int, learning_rate: float = 2e-3) -> None:
        """Trains with pythae's pipeline at its defaults, for that many epochs."""
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.pipelines import TrainingPipeline
        from pythae.samplers import MAFSampler, MAFSamplerConfig
        from pythae.trainers import BaseTrainerConfig

        outer = self

        class Encoder(BaseEncoder):
            def __init__(self) -> None:
                super().__init__()
                self.trunk, self.posterior = outer.trunk, outer.posterior

            def forward(self, x: Tensor) -> Any:
                q = self.posterior(self.trunk(x))
                return ModelOutput(embedding=q.loc, log_covariance=2 * q.log_scale)

        class Decoder(BaseDecoder):
            def __init__(self) -> None:
                super().__init__()
                self.net = outer.decoder

            def forward(self, z: Tensor) -> Any:
                return ModelOutput(reconstruction=self.net(z).sigmoid())

        torch.manual_seed(seed)
        shape, n_latent = self.sizes.x_shape, self.sizes.n_latent
        config = VAEConfig(input_dim=shape, latent_dim=n_latent, reconstruction_loss="bce")
        model = VAE(config, encoder=Encoder(), decoder=Decoder())
        train, held = data.train.floats(), data.validation.floats()
        with TemporaryDirectory() as folder, _silent(), _on_cpu():
            training = BaseTrainerConfig(
                output_dir=folder, num_epochs=epochs, learning_rate=learning_rate, seed=seed,
                per_device_train_batch_size=data.batch_size, per_device_eval_batch_size=500,
                optimizer_cls="AdamW", no_cuda=True,
            )  # fmt: skip
            pipeline = TrainingPipeline(model=model, training_config=training)
            pipeline(train_data=train, eval_data=held)
            place = Path(pipeline.trainer.training_dir) / "final_model" / "model.pt"
            # Only tensors and the names of pythae's own containers lie in what was just written.
            best = torch.load(place, weights_only=False)["model_state_dict"]
            model.load_state_dict(best)
            model.eval()
            self._fit_head(train, data.train.y)
            if self.flow_prior:
                self._sampler = MAFSampler(model, MAFSamplerConfig())
                of_sampler = BaseTrainerConfig(output_dir=folder, num_epochs=epochs, no_cuda=True)
                self._sampler.fit(train_data=train, eval_data=held, training_config=of_sampler)
                self.flow = self._sampler.maf_model
        self.eval()

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws that the classifier answers with the wanted classes; pythae seeds its own."""
        if self._sampler is None:
            return super().sample(y, generator)
        return answering(
            lambda n: self._sampler.sample(n).view(n, *self.sizes.x_shape), self.predict, y
        )

    def _fit_head(self, x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            parts = [self.posterior(self.trunk(part)) for part in x.split(500)]
        loc, log_scale = (torch.cat(one) for one in zip(*parts, strict=True))
        # On draws: on means, dims that hold no more than the prior get weights as the others do.
        optimizer = torch.optim.AdamW(self.head.parameters(), 1e-2, weight_decay=1e-4)
        for _ in range(500):
            rows = torch.randint(len(loc), (256,))
            z = Gaussian(loc[rows], log_scale[rows]).draw()
            optimizer.zero_grad()
            nn.functional.cross_entropy(self.head(z), y[rows]).backward()
            optimizer.step()


def _on_cpu() -> Any:
    """Without the GPU, which pythae's samplers take where there is one, ``no_cuda`` or not."""
    return patch("torch.cuda.is_available", return_value=False)


@contextmanager
def _silent() -> Iterator[None]:
    """Without a bar for every epoch."""
    level = logging.root.manager.disable
    logging.disable(logging.INFO)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield
    logging.disable(level)

"""Flows in one graph, compiled and exported, and among several processes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from svae.flows import ConditionalFlow
from tests import flow_graphs

ROOT = Path(__file__).parents[1]
FEW = ["affine", "affine, maps, rotation", "spline, vectors, rotation"]


def errors(*arguments: str) -> dict[str, float]:
    # In a process of its own: the shape checker breaks graphs and would be exported with them.
    command = [sys.executable, "-m", flow_graphs.__name__, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1400)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_flow_is_one_graph_both_ways() -> None:
    found = errors("--flows", FEW[-1])  # the slow test has the others
    assert len(found) == 4
    assert max(found.values()) <= 1e-5, found


@pytest.mark.slow
def test_every_flow_is_one_graph() -> None:
    rest = [name for name in flow_graphs.FLOWS if name != FEW[-1]]
    found = errors("--flows", *rest)
    assert len(found) == len(rest) * 4
    assert max(found.values()) <= 1e-5, found


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FEW[1:], "one feature, context"])
def test_flows_of_every_kind_are_compiled_by_inductor(name: str) -> None:
    found = errors("--flows", name, "--backend", "inductor")
    assert len(found) == 2
    assert max(found.values()) <= 1e-4, found


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", FEW)
def test_a_flow_trains_among_processes_as_alone(name: str, one_process: None) -> None:
    steps: list[list[Tensor]] = []
    for among in (False, True):
        torch.manual_seed(0)
        flow = flow_graphs.FLOWS[name]()
        module = DistributedDataParallel(flow) if among else flow
        optimizer = torch.optim.SGD(flow.parameters(), 1e-2)
        generator = torch.Generator().manual_seed(1)
        shape = (flow.context,) if flow.embed is None else flow.embed.shape
        for _ in range(3):
            inputs = [2 + 3 * torch.randn(20, flow.features, generator=generator)]
            if flow.context:
                inputs.append(torch.randn(20, *shape, generator=generator))  # pyright: ignore
            noise, log_det = module(*inputs)
            optimizer.zero_grad()
            (0.5 * noise.square().sum(-1) - log_det).mean().backward()
            optimizer.step()
        assert flow.started
        steps.append([value.detach().clone() for value in flow.state_dict().values()])
        loaded = flow_graphs.FLOWS[name]()
        loaded.load_state_dict(
            {key.removeprefix("module."): v for key, v in module.state_dict().items()}
        )
        assert loaded.started
    for alone, shared in zip(*steps, strict=True):
        assert torch.allclose(alone.double(), shared.double(), atol=1e-6)


def _process(rank: int, store: str, out: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    flow = DistributedDataParallel(ConditionalFlow(3, 0, 1, (4,)))
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(rank)) + 5 * rank
    flow(x)[0].square().mean().backward()
    torch.save(flow.module.state_dict(), f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_start_from_one_batch(tmp_path: Path) -> None:
    context = torch.multiprocessing.get_context("spawn")
    code = (str(tmp_path / "store"), str(tmp_path))
    running = [context.Process(target=_process, args=(rank, *code)) for rank in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join(120)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    x = torch.cat(
        [torch.randn(10, 3, generator=torch.Generator().manual_seed(r)) + 5 * r for r in range(2)]
    )
    alone = ConditionalFlow(3, 0, 1, (4,))
    alone(x)
    for name in ("blocks.0.loc", "blocks.0.log_scale"):
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], alone.state_dict()[name], atol=1e-5)

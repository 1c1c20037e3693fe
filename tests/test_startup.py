"""Start-up: what is imported when, and what runs beside the loading and never inside of a window."""

import gc
import json
import subprocess
import sys
import threading

import pytest
import torch.distributed as dist
from fake_engine import FakeEngine
from own_models import save_pipeline

import mlenergy.diffusion.benchmark as benchmark
from mlenergy.diffusion import engines, run
from mlenergy.diffusion.config.resolve import plan_from
from mlenergy.diffusion.engines import import_engine
from mlenergy.diffusion.environment.imports import large_imports
from mlenergy.diffusion.results import efficiency

PATIENCE_S = 60.0
WORDS = ["--engine", "diffusers", "--device", "cpu", "workload:t2i", "--workload.model_id", "tiny/sd3"]


class WatchedEngine(FakeEngine):
    """Notes at every call whether the collector was on, and whether the count was over."""

    def __init__(self, counted, order):
        super().__init__()
        self._counted, self._order, self.calls, self.called = counted, order, [], threading.Event()

    def generate(self, batch):
        self.calls.append((gc.isenabled(), self._counted.is_set()))
        self._order.append("call")
        self.called.set()
        return super().generate(batch)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A run of a model in a folder, whose count ends only once the engine loads."""
    model = save_pipeline(tmp_path / "model", "tiny/flux", {})
    loading, counted, order = threading.Event(), threading.Event(), []
    engine = WatchedEngine(counted, order)

    def count(plan, say):
        order.append("count begins")
        assert loading.wait(PATIENCE_S), "the count must run beside the loading, not before it"
        engine.called.wait(0.5)  # a run that does not wait for the count calls the engine by then
        counted.set()

    def load(plan, cluster):
        order.append("load")
        loading.set()
        return engine

    class Ahead:
        def __init__(self, plan, rank):
            assert plan.weights_from == str(model) and rank.is_main
            order.append("reading ahead begins")

        def end(self):
            order.append("reading ahead ends")
            return {"read_bytes": 7}

    monkeypatch.setattr(efficiency, "count_ahead", count)
    monkeypatch.setattr(run, "load_engine", load)
    monkeypatch.setattr(run, "read_ahead", Ahead)
    monkeypatch.setattr(run, "import_engine", lambda plan: order.append("import"))
    words = ["--engine", "diffusers", "--device", "cpu", "--benchmark_iters", "2", "workload:t2i"]
    words += ["--workload.model_id", str(model), "--workload.dataset", "bundled"]
    words += ["--workload.height", "64", "--workload.width", "64", "--workload.inference_steps", "2"]
    words += ["--workload.base_dir", str(tmp_path / "base"), "--no_save_images"]
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    try:
        assert benchmark.main() == 0
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    (result,) = (tmp_path / "base").glob("*/results.json")
    return engine, order, json.loads(result.read_text())


def test_count_and_reading_ahead_begin_before_the_imports_and_are_over_before_the_first_call(watched):
    engine, order, result = watched
    loading = ["reading ahead begins", "count begins", "import", "load", "reading ahead ends"]
    assert order == [*loading, "call", "call", "call"]
    assert [rank["read_ahead"] for rank in result["load"]] == [{"read_bytes": 7}]
    # Warm-up and two windows: with the collector on, as in any other program, and beside no count.
    assert engine.calls == [(True, True)] * 3


def test_large_imports_leave_the_collector_as_it_was():
    with pytest.raises(ImportError), large_imports():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with large_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


class Asked:
    """In the place of diffusers: notes which of its names are asked for."""

    def __init__(self):
        self.names = []

    def __getattr__(self, name):
        if not name.startswith("__"):
            self.names.append(name)


def test_of_diffusers_pipelines_the_familys_own_is_asked_for_while_the_collector_is_off(monkeypatch):
    _, plan = plan_from(WORDS, 1, "test")
    import_engine(plan)  # what else it imports is there from here on
    asked, on = Asked(), []
    monkeypatch.setitem(sys.modules, "diffusers", asked)
    monkeypatch.setattr(engines, "_engine_class", lambda _plan: on.append(gc.isenabled()))
    import_engine(plan)
    assert asked.names == ["StableDiffusion3Pipeline"] and on == [False] and gc.isenabled()


@pytest.mark.full  # a process that has nothing yet: 6 s
def test_a_plan_imports_its_familys_pipeline_and_no_other():
    code = (
        "import sys\n"
        "import mlenergy.diffusion.run\n"
        # Diffusers reads its switches as it is imported: not before `import_engine` has set them.
        "assert not {'diffusers', 'transformers'} & sys.modules.keys()\n"
        "from mlenergy.diffusion.config.resolve import plan_from\n"
        "from mlenergy.diffusion.engines import import_engine\n"
        f"_, plan = plan_from({WORDS!r}, 1, 'test')\n"
        "import_engine(plan)\n"
        "print('MODULES', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split("MODULES")[-1].split())
    pipelines = {name.split(".")[2] for name in modules if name.startswith("diffusers.pipelines.")}
    assert "stable_diffusion_3" in pipelines
    assert not pipelines & {"flux", "pixart_alpha", "stable_diffusion_xl", "hunyuandit", "qwenimage", "wan"}
    # Neither the other engine, nor what only other parts of this program take.
    heavy = {"xfuser", "yunchang", "datasets", "pandas", "pyarrow", "matplotlib", "torchvision", "sklearn"}
    assert not {name.split(".")[0] for name in modules} & heavy
    assert not any(name.startswith("mlenergy.diffusion.engines.xdit") for name in modules)

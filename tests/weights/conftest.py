"""A hub for models, on the double that the prompts' tests use for data sets."""

import forked
import hub_double
import pytest

from mlenergy.diffusion.weights import tiny


@pytest.fixture(autouse=True)
def building_is_forked(monkeypatch):
    """Where this process is in a group, a child builds the tiny models; it imports torch and diffusers."""
    monkeypatch.setattr(tiny, "subprocess", forked.AS_SUBPROCESS)


class _ModelHandler(hub_double._Handler):
    """A model's addresses are a data set's without the word."""

    def _answer(self):
        hub_id = self.hub.dataset_id
        self.path = self.path.replace("/api/models/", "/api/datasets/")
        if self.path.startswith(f"/{hub_id}/"):
            self.path = f"/datasets{self.path}"
        super()._answer()


class ModelHub(hub_double.HubDouble):
    """Serves one model repository."""

    def __init__(self, model_id, files):
        super().__init__(model_id, files)
        self._server.RequestHandlerClass = type("Handler", (_ModelHandler,), {"hub": self})


@pytest.fixture(scope="session")
def model_hub():
    """Call with an id and its files; a context manager."""
    return ModelHub

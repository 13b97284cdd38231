import lab_model as random_model
import pytest

from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.tasks.lab.stream import LabConfig


@pytest.fixture(scope="session")
def lab_tokenizer():
    return LabConfig().tokenizer()


@pytest.fixture(scope="session")
def lab_config(lab_tokenizer):
    return random_model.config_of(lab_tokenizer)


@pytest.fixture(scope="session")
def lab_model_directory(lab_tokenizer, tmp_path_factory) -> str:
    return random_model.save(tmp_path_factory.mktemp("model") / "tiny", lab_tokenizer)


@pytest.fixture
def lab_model(lab_model_directory) -> Model:
    return load(lab_model_directory)

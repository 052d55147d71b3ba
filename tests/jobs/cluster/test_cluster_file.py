"""The cluster file, against Ray's own schema and against what the driver expects of a cluster."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[3]


@pytest.fixture
def cluster() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    return config


def test_ray_accepts_the_cluster_file(cluster: dict[str, Any]):
    validate_config(prepare_config(cluster))


def test_ray_refuses_a_cluster_file_with_a_word_it_does_not_know(cluster: dict[str, Any]):
    with pytest.raises(Exception, match="gpu_workers"):
        validate_config(prepare_config(cluster | {"gpu_workers": 4}))


def test_actors_find_room_on_the_workers_alone(cluster: dict[str, Any]):
    types = cluster["available_node_types"]
    head = types.pop(cluster["head_node_type"])

    assert head["resources"] == {"CPU": 0}
    assert all(worker["resources"]["GPU"] >= 1 for worker in types.values())


def test_the_image_has_the_ray_that_is_pinned(cluster: dict[str, Any]):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))

    assert f":{pins['ray']}-py311" in cluster["docker"]["image"]

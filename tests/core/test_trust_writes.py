"""What no config may hold, and where a file may have something written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from wgtorch import Graph
from wgtorch.core.errors import ConfigError
from wgtorch.core.trust import check_no_keys
from wgtorch.serving.endpoint import Endpoint

KEY = "planted-0123456789"


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": KEY},
        {"extra_headers": {"x-api-key": KEY}},
        {"extra_headers": {"X-Gateway-Auth-Thing": KEY}},
        {"extra_query": {"key": KEY}},
        {"metadata": {"deep": [{"password": KEY}]}},
        {"headers": {"Authorization": KEY}},
        {"anything": f"Bearer {KEY}"},
        {"anything": f"sk-proj-{KEY}"},
        {"anything": "ghp_" + "a" * 36},
        {"anything": ["AKIAIOSFODNN7EXAMPLE"]},
        {"auth_token": KEY},
        {"AWS_SECRET_ACCESS_KEY": KEY, "secret_access_key": KEY},
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.parametrize("block", ["llm", "embedder", "image_generator", "vlm"])
def test_keys_in_options_are_refused_and_not_repeated(options, block):
    graph = Graph("g")
    with pytest.raises(ConfigError, match=r"\.options\..*looks like a key or a password.*name the variable") as caught:
        graph.add_node(block, "l", config={"provider": "openai", "model_id": "m", "options": options})
    assert KEY not in str(caught.value) and "ghp_a" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 5, "min_tokens": 3, "stop_token_ids": [1], "eos_token": "</s>", "key": "c major"},
        {"prompt_cache_key": "chapter-3", "user": "somebody", "metadata": {"tokens": "many", "author": "me"}},
        {"extra_headers": {"x-tenant": "acme"}, "reasoning": {"effort": "low"}, "task": "sk-learn is a library"},
        {"api_key": None, "password": ""},
    ],
)
def test_what_is_no_key_is_taken(options):
    check_no_keys(options, "options")


@pytest.mark.parametrize("url", [f"http://h/v1?key={KEY}", f"http://h/v1#{KEY}", f"http://me:{KEY}@h/v1", f"ftp://me:{KEY}@h"])
def test_keys_in_addresses_are_refused_and_not_repeated(url):
    with pytest.raises(ConfigError) as caught:
        Graph("g").add_node("llm", "l", config={"provider": "openai", "model_id": "m", "endpoint_url": url})
    assert KEY not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        Endpoint(url)
    assert KEY not in str(caught.value)


def config_of(cassette: str, mode: str | None) -> dict:
    node = {"node_id": "l", "block_type": "llm", "config": {"model_id": "m", "cassette": cassette, **({"mode": mode} if mode else {})}}
    return {"kind": "graph", "graph_id": "g", "nodes": [node]}


@pytest.mark.parametrize("mode", ["record", "auto", None], ids=str)
@pytest.mark.parametrize("place", ["{out}/x", "../out/x", "~/x", "link/x"])
def test_a_file_has_no_cassette_written_elsewhere(mode, place, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "here/link").symlink_to(tmp_path / "out")
    monkeypatch.chdir(tmp_path / "here")
    cassette = place.format(out=tmp_path / "out")
    Path("g.yaml").write_text(yaml.safe_dump(config_of(cassette, mode)))
    with pytest.raises(ConfigError, match=r"g\.yaml: g/l: .*cassette: would be written to .*current folder.*trust=True"):
        Graph.from_yaml("g.yaml")
    Graph.from_yaml("g.yaml", trust=True)
    Graph.from_config(config_of(cassette, mode))  # a caller's own
    Path("g.yaml").write_text(yaml.safe_dump(config_of("tapes/x", mode)))
    Graph.from_yaml("g.yaml")
    Path("g.yaml").write_text(yaml.safe_dump(config_of(cassette, "replay")))
    Graph.from_yaml("g.yaml")
    assert not list((tmp_path / "out").iterdir())

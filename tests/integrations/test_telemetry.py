"""OpenTelemetry's own SDK sees the run: spans that nest as the levels do, and nothing is imported where it is not used."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from wgtorch.core.block import Block
from wgtorch.graph import Graph
from wgtorch.integrations.telemetry import Telemetry
from wgtorch.pipeline import Pipeline


def spans_of(block: Block) -> tuple[Pipeline, InMemorySpanExporter, Telemetry]:
    graph = Graph("g")
    graph.add_node(block, "model")
    graph.infer_exposed_ports()
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "first")
    pipeline.infer_exposed_ports()
    provider, kept = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return pipeline, kept, Telemetry(provider.get_tracer("test"))


def test_spans_nest_as_the_levels_do_and_tell_of_tokens() -> None:
    def talk(prompt: str) -> dict:
        return {"text": prompt, "usage": {"prompt_tokens": 3, "completion_tokens": 4}}

    pipeline, kept, telemetry = spans_of(Block.wrap(talk, inputs={"prompt": "text"}, outputs={"text": "text", "usage": "dict"}))
    for _ in range(2):
        pipeline.run({"prompt": "x"}, callbacks=[telemetry])
    spans = kept.get_finished_spans()
    model, first = spans[0], spans[1]
    assert [span.name for span in spans[:2]] == ["first/model", "first"] and len(spans) in (4, 6)
    assert model.parent.span_id == first.context.span_id
    assert model.attributes["gen_ai.usage.input_tokens"] == 3 and model.attributes["gen_ai.usage.output_tokens"] == 4
    assert model.attributes["wgtorch.level"] == "block" and telemetry._open == {}


def test_a_failure_is_a_status_and_leaves_no_span_open() -> None:
    def broken(prompt: str) -> dict:
        raise RuntimeError("cracked")

    pipeline, kept, telemetry = spans_of(Block.wrap(broken, inputs={"prompt": "text"}, outputs={"text": "text"}))
    with pytest.raises(RuntimeError):
        pipeline.run({"prompt": "x"}, callbacks=[telemetry])
    model = next(span for span in kept.get_finished_spans() if span.name == "first/model")
    assert model.status.status_code.name == "ERROR"
    assert telemetry._open == {}


def test_nothing_is_imported_where_it_is_not_used() -> None:
    code = "import sys, wgtorch; wgtorch.Graph, wgtorch.World; print('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"

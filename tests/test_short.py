"""Building by hand stays short: these lines are the whole of it."""

from __future__ import annotations

from typing import Any

from wgtorch.graph import Graph

TEXT_TO_IMAGE = """
t2i = Graph("t2i")
t2i.add_node("tokenizer/scene")
t2i.add_node("conditioner/scene", config={"checkpoint_ref": "wgtorch:scene_text"})
t2i.add_node("noise/gaussian", config={"shape": [3, 64, 64]})
t2i.add_node("backbone/scene", config={"checkpoint_ref": "wgtorch:scene_painter"})
t2i.add_node("solver/flow_euler", config={"num_steps": 12, "prediction": "x0"})
t2i.add_node("codec/pixels")
t2i.infer_exposed_ports()
"""
IMAGE_TO_IMAGE = """
i2i = Graph("i2i")
[i2i.add_node(t2i.nodes[name]) for name in ("tokenizer", "conditioner", "backbone", "solver", "codec")]
i2i.add_node("encoder/pixels")
i2i.add_node("noise/image", config={"strength": 0.9, "schedule": {"kind": "flow", "num_steps": 12, "num_train_timesteps": 1}})
i2i.infer_exposed_ports()
"""


def test_text_to_image_in_ten_lines_and_image_to_image_in_five_more() -> None:
    assert len(TEXT_TO_IMAGE.split("\n")) - 2 <= 10
    assert len(IMAGE_TO_IMAGE.split("\n")) - 2 <= 5
    built: dict[str, Any] = {"Graph": Graph}
    exec(TEXT_TO_IMAGE + IMAGE_TO_IMAGE, built)
    image = built["t2i"].run({"text": "a red castle in the hills by day, under a clear sky, on the left, nobody"}, seed=1)["image"]
    foggy = built["i2i"].run({"text": "a red castle in the hills by day, in the fog, on the left, nobody", "image": image}, seed=2)["image"]
    look = Graph.from_template("caption")
    first, second = look.run({"image": image})["attributes"], look.run({"image": foggy})["attributes"]
    assert (first["weather"], first["landmark"], first["place"]) == ("clear", "castle", "left")
    assert (second["weather"], second["landmark"], second["place"]) == ("fog", "castle", "left")
    assert built["i2i"].nodes["backbone"] is built["t2i"].nodes["backbone"]
    assert (image - foggy).abs().mean() > 0.02

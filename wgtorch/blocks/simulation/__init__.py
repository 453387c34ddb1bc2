"""A world as a simulation: places, people, things, threads and a ledger of events, told and painted from facts that travel as data."""

from wgtorch.blocks.simulation.blocks import (
    SimulationArchitect,
    SimulationAuthor,
    SimulationDevelopment,
    SimulationUpdate,
)
from wgtorch.blocks.simulation.model_reader import ReadLines, UnreadLines
from wgtorch.blocks.simulation.narrator import SimulationAccount, SimulationNarrated
from wgtorch.blocks.simulation.readers import RuleActionReader, TrainedActionReader
from wgtorch.blocks.simulation.repainting import Again, Better, Misread
from wgtorch.blocks.simulation.scene_plan import Look, ScenePlan, Thing

__all__ = [
    "Again",
    "Better",
    "Look",
    "Misread",
    "ReadLines",
    "RuleActionReader",
    "ScenePlan",
    "SimulationAccount",
    "SimulationArchitect",
    "SimulationAuthor",
    "SimulationDevelopment",
    "SimulationNarrated",
    "SimulationUpdate",
    "Thing",
    "TrainedActionReader",
    "UnreadLines",
]

"""Which nodes lie behind a route: an output of a block of which one call gives only some.

router.poem  -> poet -> .          poet lies behind (router, poem), judge behind (router, fact);
router.fact  -> judge -> join      a port that joins both, by ``first`` or the like, lies behind neither
"""

from __future__ import annotations

from collections.abc import Sequence

from wgtorch.core.errors import Finding
from wgtorch.core.plan.wiring import Wiring
from wgtorch.core.structure import Edge, InputShape

Routes = frozenset[tuple[str, str]]
"""Routes, as (node, output), all of which have to be taken for a value to be there."""
_NONE: Routes = frozenset()


class BehindRoutes:
    """For nodes, ports and edges of a structure, the routes that they lie behind."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.has_any = any(node.routes for node in wiring.structure.nodes.values())
        self._nodes: dict[str, Routes] = {}

    def node(self, node_id: str) -> Routes:
        """Routes that have to be taken for a node to run."""
        if not self.has_any:
            return _NONE
        todo = [node_id]
        while todo:  # without recursion: graphs may be long
            at = todo[-1]
            if at in self._nodes:
                todo.pop()
                continue
            waiting = [
                edge.source_node
                for port in self._required(at)
                for edge in self._edges(at, port.name)
                if edge.source_node not in self._nodes
            ]
            if waiting:
                todo += waiting
                continue
            self._nodes[at] = frozenset().union(*[self.port(at, port) for port in self._required(at)])
            todo.pop()
        return self._nodes[node_id]

    def output(self, node_id: str, port: str) -> Routes:
        """Routes that have to be taken for an output to be there."""
        if not self.has_any:
            return _NONE
        own = frozenset({(node_id, port)}) if port in self.wiring.structure.nodes[node_id].routes else _NONE
        return self.node(node_id) | own

    def port(self, node_id: str, port: InputShape) -> Routes:
        """Routes that have to be taken for an input to arrive; of several sources, those that all of them lie behind."""
        if port.filled or (node_id, port.name) in self.wiring.exposed_into:
            return _NONE
        found = [self.output(edge.source_node, edge.source_port) for edge in self._edges(node_id, port.name)]
        return found[0].intersection(*found[1:]) if found else _NONE

    def of_required(self, node_id: str) -> tuple[tuple[str, Routes], ...]:
        """Required inputs that lie behind routes, with those."""
        if not self.has_any:
            return ()
        found = [(port.name, self.port(node_id, port)) for port in self._required(node_id)]
        return tuple([(name, routes) for name, routes in found if routes])

    def findings(self) -> list[Finding]:
        """Nodes that need values of two routes of one router, and loops that go on with a value which may not be there."""
        feedback = sorted(self.wiring.feedback, key=str) if self.has_any else ()
        findings = [self._lost(edge) for edge in feedback if self._may_be_lost(edge)]
        for node_id in self.wiring.structure.nodes if self.has_any else ():
            needed = self.of_required(node_id)
            for index, (name, routes) in enumerate(needed):
                for other, others in needed[index + 1 :]:
                    if (pair := apart(routes, others)) is not None:
                        (router, first), (_, second) = pair
                        findings.append(
                            Finding(
                                f"{self.wiring.structure.name}/{node_id}",
                                f"{name} lies behind {router}.{first} and {other} behind {router}.{second}; one call may give only one",
                                mend="Join them in one port with aggregation 'first', or make one of the ports optional.",
                            )
                        )
        return findings

    def _may_be_lost(self, edge: Edge) -> bool:
        """True where an iteration may end without the value that the next one needs, and nothing in the loop ends it."""
        nodes, members = self.wiring.structure.nodes, self.wiring.components[self.wiring.component[edge.source_node]]
        needed = any(port.name == edge.target_port for port in self._required(edge.target_node))
        ends = any("done" in nodes[node].outputs for node in members)
        return needed and not ends and any(router in members for router, _ in self.output(edge.source_node, edge.source_port))

    def _lost(self, edge: Edge) -> Finding:
        routes = " and ".join(f"{router}.{route}" for router, route in sorted(self.output(edge.source_node, edge.source_port)))
        return Finding(
            f"{self.wiring.structure.name}/{edge.target_node}",
            f"{edge.target_port} is fed back from {edge.source_node}.{edge.source_port}, which lies behind {routes}: "
            "where that is not taken, the next iteration lacks it",
            mend="Join what each route brings in one port with aggregation 'first' before it is fed back, or end the loop by 'done'.",
        )

    def _required(self, node_id: str) -> Sequence[InputShape]:
        return [port for port in self.wiring.structure.nodes[node_id].inputs if port.required]

    def _edges(self, node_id: str, port: str) -> list[Edge]:
        return [edge for edge in self.wiring.edges_into.get((node_id, port), ()) if edge not in self.wiring.feedback]


def apart(first: Routes, second: Routes) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """Two different routes of one router, one that the first lies behind and one that the second does."""
    for router, route in sorted(first - second):
        for other, another in sorted(second - first):
            if other == router and another != route:
                return (router, route), (other, another)
    return None

"""Lines by another hand than the rules', idioms above all, with what each is to mean; the reader learned from none.

Some sixty phrases of the first thousand were taken into the tables. In ``marked_lines.txt`` a verb stands in braces before the word that
it is: ``i'd rather {stay}stay than {?go}walk``; with ``!`` it is denied, with ``?`` only thought of, with ``>`` done last. A reading is
right where it names the same acts in the same order.
"""

from __future__ import annotations

import re
from pathlib import Path

from wgtorch.blocks.simulation.phrases import VERBS
from wgtorch.blocks.simulation.readers import TrainedActionReader
from wgtorch.core.block import BlockRegistry

_MARK = re.compile(r"\{([!?>]?)([a-z]+)\}")
_NO_ACTS = {"remark", "unknown", "ask", "wish", "fly", "pray"}


def test_lines_by_another_hand_are_read_as_often_as_the_docs_say_and_hardly_one_is_turned_round() -> None:
    reader = BlockRegistry.build({"block_type": "reader/trained", "config": {"checkpoint_ref": "wgtorch:action_reader"}})
    assert isinstance(reader, TrainedActionReader)
    rows = (Path(__file__).parent / "marked_lines.txt").read_text(encoding="utf-8").splitlines()
    right, turned = 0, []
    for row in rows[::5]:
        marks = _MARK.findall(row)
        assert marks and {verb for _, verb in marks} <= set(VERBS), row
        meant = [(verb, sign == "!") for last in (False, True) for sign, verb in marks if sign != "?" and (sign == ">") is last]
        read = [(action.verb, action.negated) for action in reader.read(_MARK.sub("", row))]
        is_no_act = all(verb in _NO_ACTS for verb, _ in (*meant, *read))
        right += read == meant or is_no_act
        turned += [row] if any((verb, not denied) in read for verb, denied in meant) else []
    assert right >= 0.6 * len(rows[::5]), right / len(rows[::5])
    assert len(turned) <= 0.015 * len(rows[::5]), turned

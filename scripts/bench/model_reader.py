#!/usr/bin/env python
"""How a local language model reads typed actions that the rules find no verb in, before and after a training.

    python scripts/bench/model_reader.py                                              # the adapter that ships
    python scripts/bench/model_reader.py --adapter outputs/default_model_reader/<time>/...   # another, in PEFT's format

The lines are in no training grammar. A threshold of ``reader/read`` may be chosen on CHOOSE; TEST only measures. A line is read wholly
where verb, negation and all parts agree, without articles and case.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from wgtorch.blocks.simulation.model_reader import PARTS, SCHEMA, SYSTEM, meant
from wgtorch.blocks.simulation.readers import RuleActionReader
from wgtorch.templates.narrator import READER, narrator_model

CHOOSE = """
saunter over to the woods | go place=forest
cover the tower in blue | colour target=tower manner=blue
geh nicht zum Fluss | go place=river negated
nimm den Hut | take target=hat
baue eine Mühle | build target=windmill
sprich mit der Königin | talk target=queen
allons à la montagne | go place=mountains
construis un bateau | build target=ship
mange le fromage | eat target=cheese
parle avec le roi | talk target=king
vete al bosque | go place=forest
quema la casa | burn target=house
coge la llave y abre la puerta | take target=key ; open target=door
dormi fino al mattino | sleep manner=until morning
пойди в горы | go place=mountains
возьми меч | take target=sword
не ходи в пещеру | go place=cave negated
спроси мельника о войне | ask target=miller
"""
TEST = """
mosey along to the river | go place=river
point my feet at the mountains | go place=mountains
slip inside the tower | enter place=tower
reduce the tent to ashes | burn target=tent
let Marek have the key | give target=key receiver=marek
slide the book over to the innkeeper | give target=book receiver=innkeeper
wolf down the bread | eat target=bread
belt out a tune | perform target=song
tread the boards | perform
geh zum Meer | go place=sea
lauf nach Süden | go manner=south
wir gehen in den Wald | go place=forest
hole das Messer | take target=knife
verbrenne den Turm nicht | burn target=tower negated
gib Anna das Brot | give target=bread receiver=anna
such nach einem Schatz | search target=treasure
baue ein Haus und schlaf | build target=house ; sleep
streich das Haus weiß | colour target=house manner=white
je veux aller au désert | go place=desert
donne la pomme à Luca | give target=apple receiver=luca
ne touche pas le feu | take target=fire negated
cherche une épée | search target=sword
peins la porte en rouge | colour target=door manner=red
camina hacia el norte | go manner=north
quiero ir a la playa | go place=sea
dale el pan a Rosa | give target=bread receiver=rosa
no quemes el barco | burn target=ship negated
habla con la panadera | talk target=baker
busca leña | search target=wood
canta una canción | perform target=song
construye una torre azul | build target=blue tower
entra nella grotta | enter place=cave
raccogli i fiori | gather target=flowers
dai la lampada al fabbro | give target=lamp receiver=smith
non distruggere il mulino | destroy target=windmill negated
scappa dal lupo | flee
sali sulla torre | climb target=tower
иди к реке | go place=river
иди на запад | go manner=west
дай Анне яблоко | give target=apple receiver=anna
не жги дом | burn target=house negated
поговори с рыбаком | talk target=fisher
найди клад | search target=treasure
где кузнец? | ask target=smith
возьми лампу и иди домой | take target=lamp ; return
rustle up a stew | cook target=soup
drift off until dawn | sleep manner=until dawn
smooth things over with Oskar | reconcile target=oskar
prends vite cette corde | take target=rope
toma ese libro viejo | take target=book
sistema la barca | repair target=boat
"""


def read_as(text: str) -> list[dict[str, Any]]:
    """The actions that a line's second half writes down: ``give target=apple receiver=anna negated ; sleep``."""
    actions = []
    for clause in text.split(" ; "):
        verb, *rest = clause.strip().split(" ")
        action: dict[str, Any] = {"verb": verb, "negated": "negated" in rest}
        last = ""
        for word in rest:
            name, equals, value = word.partition("=")
            if equals:
                last, action[name] = name, value
            elif word != "negated":
                action[last] += f" {word}"
        actions.append(action)
    return actions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, help="folder of an adapter; the one that ships when left out")
    parser.add_argument("--show", action="store_true", help="print each line with what was read")
    args = parser.parse_args()
    from wgtorch import lora

    model = narrator_model("smollm2")
    if args.adapter is not None:
        lora.load(model, args.adapter, READER, wear=False, replace=True)
    for name, lines in (("choose", CHOOSE), ("test", TEST)):
        rows = []
        for line in lines.strip().splitlines():
            said, means = (half.strip() for half in line.split("|"))
            assert RuleActionReader().read(said)[0].verb == "unknown" or args.show, f"the rules read {said!r}"
            with lora.use_adapter(model, READER):
                answer = model(prompt=said, system=SYSTEM, schema=SCHEMA, temperature=0.0, max_tokens=120)
                likely = model(prompt=said, system=SYSTEM, answer=answer["text"])
            score = float(likely["log_prob"] / likely["answer_tokens"])
            found = [
                {"verb": a.verb, "negated": a.negated, **{part: v.lower() for part in PARTS if (v := getattr(a, part))}}
                for a in meant(answer["data"], said)
            ]
            wanted = read_as(means)
            verb = bool(found) and (found[0]["verb"], found[0]["negated"]) == (wanted[0]["verb"], wanted[0]["negated"])
            turned = bool(found) and found[0]["verb"] == wanted[0]["verb"] and found[0]["negated"] != wanted[0]["negated"]
            rows.append((score, found == wanted, verb, turned))
            if args.show:
                print(f"  {score:7.3f} {'all ' if found == wanted else 'verb' if verb else '    '} {said} -> {found}", flush=True)
        count = len(rows)
        print(
            f"{name}: {count} lines, {sum(r[1] for r in rows) / count:.0%} wholly, {sum(r[2] for r in rows) / count:.0%} verb", flush=True
        )
        for least in (-0.01, -0.02, -0.03, -0.05, -0.1):
            sure = [row for row in rows if row[0] >= least]
            told = f"{sum(r[1] for r in sure)} wholly right, {sum(r[2] for r in sure)} by verb, {sum(r[3] for r in sure)} turned round"
            print(f"  at least {least}: {len(sure)} taken, {told}", flush=True)


if __name__ == "__main__":
    main()

"""How a narrator tells: patterns of plain prose by verb, from which its training texts are composed. Plain data.

Fields as in :mod:`wgtorch.blocks.simulation.telling.sentences`; who acts stands before the word that says what they did.
"""

from __future__ import annotations

PROSE: dict[str, tuple[str, ...]] = {
    "go": (
        "{A} [left {Q} behind|left {Q}|had enough of {Q}] and [came to|walked on to|reached|set foot in] {P}",
        "{A} [walked|wandered|travelled|made the journey|hurried|went] from {Q} to {P}[| {H}|, {H}]",
        "From {Q} {A} [took the road|followed the path|walked|went on] to {P}[|, {H}]",
        "{A} [set out from|left] {Q} [early|slowly|without a word|in good spirits|at an easy pace] and [arrived in|came as far as|reached] {P}",
        "After [a long walk|some hours on the road|a while on the road] from {Q}, {A} [arrived in|came to|reached|stood in] {P}",
        "{A} [said goodbye to|turned away from] {Q}, and [the road led to|went over to|the path ended at] {P}",
        "{A} [came|arrived] in {P} [from {Q}|on the road from {Q}][, {H}|]",
    ),
    "want": (
        "{A} [decided|resolved|made up a mind] to {W}",
        "{A} [had a new plan|thought of one thing only|had found something to do|had a wish]: to {W}",
        "{A} [wanted|hoped|longed|meant] to {W}[| from now on| before anybody else did|, {H}]",
        "{A} [told everybody|told whoever would listen|made no secret] of a plan to {W}",
        "{A} [could not stop thinking|lay awake|began to dream] of a way to {W}",
        "{A} [promised|swore] to {W}, and [meant it|it was no idle word|said it twice]",
    ),
    "finish": (
        "{A} [had wanted|had hoped|had set out] to {V}, and now it was done",
        "{A} had [kept a promise|reached a goal|come to the end of a plan]: to {V}",
        "{A} [had managed|had found the strength|finally managed] to {V}[|, {H}]",
        "{A} was [glad|content|proud] to have come so far: the wish to {V} was fulfilled",
        "{A} [sat down|smiled|took a deep breath]; the [old wish|long plan] to {V} [had come true|was behind them all]",
    ),
    "give_up": (
        "{A} [gave up|let go of|dropped|abandoned] the [plan|wish|hope] to {W}",
        "{A} had to [accept it|see it]: [there was no way|it would never happen] to {W}",
        "With a [sigh|shake of the head] {A} [gave up|let go of] the [plan|wish] to {W}",
    ),
    "take": (
        "{A} [found|picked up|took] the {T} at {P}[|, {H}]",
        "At {P} {A} [picked up|found|took] the {T} [and kept it|and carried it along|that had been lying there]",
        "{A} [bent down|had seen it from afar], and [picked up the {T}|took the {T} along]",
        "{A} [lifted|took] the {T} from the ground of {P}",
    ),
    "give": (
        "{A} [gave|handed|brought] the {T} to {O} at {P}[|, {H}]",
        "{A} [put|pressed|laid] the {T} into the hands of {O}",
        "At {P} {A} [gave|handed] {O} the {T}[, a gift|, and both were glad|]",
        "{A} [held out|offered] the {T}, and {O} [accepted it|was happy with it|said thanks]",
    ),
    "drop": ("{A} [laid|put|set] the {T} down at {P}", "{A} [left|dropped] the {T} at {P}[ and went on without it|]"),
    "trade": (
        "{A} [gave|traded|offered] the {G} to {O} [and got the {T}|and received the {T}] [in return|for it]",
        "At {P} {A} [haggled|bargained] with {O} [for a while|patiently|{H}], until the {T} was had for the {G}",
        "{A} [swapped|exchanged] the {G} with {O} and went away with the {T}",
    ),
    "steal": (
        "{A} [stole|took] the {T} of {O} [at {P}|while nobody looked|and ran]", "At {P} {A} [stole|slipped away with] the {T} that belonged to {O}",
    ),
    "beg": (
        "{A} [asked|begged] {O} for the {T}, and {O} [parted with it|gave way|could not say no]",
        "{A} [pleaded|asked] until {O} handed over the {T}",
    ),
    "talk": (
        "{A} [talked|spoke|sat and talked] with {O} at {P}[ for a long time| about this and that|, {H}|]",
        "At {P} {A} [met|fell into talk with|had a long talk with|shared the latest news with] {O}",
        "{A} [told|had much to tell] {O} [what was new|of the road|of many things] at {P}",
        "{A} and {O} met at {P}, and {A} [talked|told] of [what was new|old days|many things]",
    ),
    "greet": (
        "{A} [greeted|nodded to|smiled at|waved to] {O} at {P}[|, {H}]", "{A} [had a kind word|had a smile|wished the best] for {O} at {P}",
        "At {P} {A} [greeted|welcomed] {O} [like an old friend|warmly|with a smile]",
    ),
    "befriend": (
        "{A} [spent|shared] [a few hours|some time|a good while] with {O} at {P}, [and they grew closer|{H}|and both laughed a lot]",
        "{A} [grew fond of|won the trust of|came closer to] {O} at {P}", "At {P} {A} [sat|laughed] with {O} [like old friends|and won some trust|for hours]",
    ),
    "court": ("{A} [asked|knelt down and asked] for the hand of {O} at {P}", "At {P} {A} asked {O} to marry[, {H}|]", "{A} [proposed] to {O} at {P}"),
    "help": (
        "{A} [helped|lent a hand to|came to the aid of|worked side by side with] {O} at {P}[|, {H}]",
        "At {P} {A} [helped|stood by] {O} [when it counted|without being asked|until the work was done]",
    ),
    "quarrel": (
        "{A} [quarrelled|argued|had a bitter argument] with {O} at {P}", "At {P} {A} [shouted at|called names after|had hard words for] {O}[, {H}|]",
    ),
    "reconcile": ("{A} [made peace|settled the old quarrel] with {O} at {P}", "{A} [held out a hand to|said sorry to|apologised to] {O} at {P}"),
    "invite": ("{A} [asked|invited] {O} along, and both came to {P}", "{A} [took|brought|led] {O} along to {P}"),
    "teach": ("{A} [taught|showed] {O} the craft of a {K} at {P}", "At {P} {A} [showed|taught] {O} [what a {K} knows|the first steps of a {K}]"),
    "build": (
        "{A} [built|put up|raised|finished] the {K} at {P}[|, {H}]", "At {P} {A} [built|put up|hammered and sawed at] the {K} [until it stood|with both hands|{H}]",
    ),
    "repair": (
        "{A} [mended|repaired|put right] the {T} of {P}[|, {H}]", "At {P} {A} [worked and|took the time and|] [mended|repaired] the {T} [until it stood as before|with patience|piece by piece]",
    ),
    "craft": ("{A} [made|crafted|finished] the {T} at {P}[|, {H}]", "At {P} {A} [worked on the {T} until it was done|made the {T} with patience]"),
    "cook": ("{A} [cooked|made] the {T} at {P}", "At {P} {A} [made|stirred and cooked] the {T}[, {H}|]"),
    "gather": ("{A} [gathered|collected|found] the {T} at {P}[|, {H}]", "At {P} {A} [searched and found|gathered] the {T}"),
    "dig": ("{A} [dug] the {T} at {P}[|, {H}]", "At {P} {A} [dug and dug|worked] until there was the {T}"),
    "plant": ("{A} [planted|set] the {T} at {P}[|, {H}]", "At {P} {A} [planted|pressed the earth firm around] the {T}"),
    "light": ("{A} [lit] the {T} at {P}[|, {H}]", "At {P} {A} [kindled|lit] the {T}, and it grew warm"),
    "perform": ("{A} [performed|sang|played] at {P}, [and it did everybody good|{H}|for whoever would hear it]", "At {P} {A} [gave a performance|sang for a while|performed][|, {H}]"),
    "rest": ("{A} [rested] at {P}[ for a while|, {H}|]", "At {P} {A} [sat down|rested|lay down] [for a while|and closed both eyes|and looked at nothing]"),
    "stay": ("{A} [stayed|remained] at {P}[ for now|, {H}|]",),
    "sleep": ("{A} [slept] at {P}[ like a stone|, deep and long|]", "At {P} {A} [lay down and slept|fell asleep] [at once|for hours|]"),
    "wait": ("{A} [waited] at {P}[ for hours|, {H}|]", "At {P} {A} [sat and waited|waited] [for time to pass|patiently|]"),
    "search": ("{A} [searched|looked through] {P} [from end to end|with care|{H}]",),
    "look": ("{A} [looked about|took a long look] at {P}[, {H}|]",),
    "arrive": (
        "{A}, a {K}, [arrived|came] at {P} as a stranger", "A new face [|was seen |]: {A}, a {K} by trade, came to {P}", "{A} the {K} [came to|arrived in|reached] {P}, a stranger [to all|with little to carry|in search of a bed]",
    ),
    "depart": (
        "{A} the {K} [left the land|went away for good|departed] by way of {P}", "{A} the {K} [took leave|left|walked away] from {P} [for good|and did not look back|without a farewell]",
    ),
    "lose": (
        "{A} [lost|dropped] the {T} [somewhere |]at {P}[ without knowing it| and did not notice|]", "At {P} {A} [lost|mislaid] the {T}[, {H}|]",
    ),
    "discover": (
        "{D} of {P} {A} [discovered|found|came upon] [new land|a place on no map|a place without a name]: {T}, {L}", "{A} [walked {D} of {P} and|went {D} from {P} and] [discovered|found|came upon] {T}, {L}",
        "{A} [found a way|came] {D} of {P} into {T}, {L}, [where nobody had been|which was on no map]",
    ),
    "damage": ("The storm [left|had left] the {K} at {P} {S}", "The storm [struck|hit] {P} and [left the {K} {S}|the {K} was {S} afterwards]"),
    "go_out": ("The fire at {P} [went out|died down and went out]",),
    "ripen": ("The {T} at {P} [bore|gave|carried] {X}", "At {P} the {T} [bore fruit: {X}|let {X} fall]"),
    "wash_ashore": ("The water [washed|brought|threw] the {T} ashore at {P}", "At {P} the water [left|laid down] the {T} on the bank", "The {T} [came|drifted] ashore at {P}"),
    "decay": ("The {T} at {P} [fell to pieces|was old and fell to pieces|rotted away]",),
}  # fmt: skip
"""One sentence for one event, without its reason."""

BESIDE = (
    "Meanwhile, |",
    "Elsewhere, |",
    "Far from there, |",
    "In those same hours, |",
    "Not far away, |",
    "Somewhere else, |",
    "|",
    "|",
    "|",
)
"""What may stand before what others did."""

SCENES: tuple[str, ...] = (
    "{W} {at} {P} {t}.|N",
    "It was {t2} at {P}, and {w}.|N",
    "{T}, {w} {at} {P}.|N",
    "{T} at {P}, {w}, and {n}.",
    "{T} {w}, and {n}.",
    "{P} lay {in} {t}; {w}.|N",
    "{N} {t}; {w}.",
    "{W} {at} {P} {t}, and {n}.",
    "{T} {w} at {P}, while {n}.",
)
"""How a scene is told: ``W`` and ``w`` the sky, ``T`` and ``t`` the hour, ``N`` and ``n`` the land."""

HOURS = {
    "dawn": ("at dawn|in the first light|early in the morning|at sunrise|in the grey of the morning", "dawn|early morning|daybreak"),
    "day": (
        "by day|in broad daylight|around noon|in the afternoon|in the middle of the day",
        "day|about noon|afternoon|the middle of the day",
    ),
    "dusk": ("at dusk|in the evening|towards nightfall|in the last light|at sunset", "dusk|evening|almost dark"),
    "night": (
        "at night|in the dark|late at night|around midnight|in the small hours",
        "night|past midnight|late at night|the middle of the night",
    ),
}
SKIES = {
    "clear": "the sky was clear|not a cloud was in sight|the air was clear and still|the sky stood open and clear|the clear air carried every sound",
    "cloudy": "clouds hung low|clouds drifted over the land|grey clouds covered the sky|the clouds moved slowly|thick clouds lay over everything",
    "rain": "rain was falling|a steady rain fell|it was raining|rain ran down every leaf|a thin rain would not stop",
    "snow": "snow was falling|thick flakes of snow came down|it was snowing|snow lay on everything|the snow fell without a sound",
    "fog": "fog lay over the land|the fog was thick|fog crept along the ground|everything was wrapped in fog|the fog swallowed every sound",
    "storm": "a storm was raging|thunder rolled over the land|the storm bent whatever stood|a storm had come up|lightning flashed in the storm",
}
GROUND = {
    "clear": "stood sharp and still|lay quiet|cast long shadows|hardly moved|were very still",
    "cloudy": "looked dull|lay grey and quiet|waited|seemed closer than usual|lay under a heavy sky",
    "rain": "were dripping|shone wet|bowed under the drops|ran with water|smelled of wet earth",
    "snow": "lay under white|had turned white|were hidden|were soft and white|wore a cover of white",
    "fog": "came and went in the mist|were grey shapes|had no outlines|could hardly be seen|seemed far away",
    "storm": "were bent low|trembled|were torn about|shook|groaned",
}
MARKS = {
    "whole": "{X} stood [nearby|by the road|above it all|a little apart]",
    "unfinished": "{X} stood there unfinished",
    "locked": "{X} stood locked",
    "burning": "{X} was burning",
    "burnt": "{X} was burnt and black",
    "ruined": "{X} lay in ruins",
    "flooded": "{X} stood flooded",
}

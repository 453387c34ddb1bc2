"""How each kind of event is told, remembered and wished for: patterns by verb. Plain data.

Fields: ``A`` who acts, ``T`` what or whom it is done to, ``P`` where, ``Q`` another place, ``O`` another person, ``G`` what was given or
got, ``W`` a wish as an infinitive, ``H`` how, ``K`` a kind of work or building, ``L`` a land, ``D`` a direction.
"""

from __future__ import annotations

TOLD: dict[str, tuple[str, ...]] = {
    "go": (
        "{A} [left|turned from|took leave of|shook off the dust of|said no farewell to|had had enough of] {Q} and [came to|reached|found the way to|went as far as|did not stop before] {P}[ {H}|, {H}|]",
        "[the road|a footpath|an old track|the drovers' way|a shortcut|the long way round] [brought|led|carried|took] {A} [out of|away from] {Q} [and into|to|down to|over to] {P}",
        "{A} [walked|strode|trotted|plodded|strolled|wandered|hurried] from {Q} [to|over to|across to] {P}, {H}",
        "from {Q} it was [not far|farther than it looked|an easy stretch|half a song's walk|a dusty stretch], and {A} [stood in|came to|set foot in|was seen in] {P} [sooner than expected|later than planned|just as somebody there looked up|with pebbles in one shoe|hungry as a wolf]",
        "{P} [took {A} in|received {A}|opened up before {A}|did not seem surprised to see {A}] [as it takes in everybody who comes from|like all who come from|who had started in] {Q}",
        "with {Q} [out of sight|behind the last bend|no more than a smudge|far behind], {A} [came into|turned towards|entered|sighted] {P}[ {H}|, {H}|]",
        "{A} [turned up|showed up|appeared|was back on two feet] in {P}, [dust of {Q} still on both shoes|the smell of {Q} still in the coat|with a burr from {Q} on one sleeve|a stalk from {Q} between the teeth]",
        "[the way out of {Q}|what had begun at the edge of {Q}|the walk from {Q}] [ended|came to a stop|was over] for {A} in {P}",
        "{A} [arrived at|got to|made] {P} {H}; {Q} was [already a memory|out of mind|half a day behind|no more than a name now]",
    ),
    "want": (
        "{A} [made up a mind|came to a decision|took a vow|shook hands with nobody in particular] at {P}: [to|it was time to|nothing for it but to] {W}",
        "[a thought|an idea|a notion|a longing] [took hold of|got under the skin of|settled in|would not leave] {A} at {P}, to {W}",
        "{A} [swore to|resolved to|was set on it, to|had but one aim, to] {W}, {H}",
        "[from now on|from that hour|until further notice|come what may,] {A} [meant to|was going to|intended to|would try to] {W}",
        "{A} told [whoever would listen|an old fence post|three passers-by|the wind] at {P} of [a plan|a scheme|the intention|a dream] to {W}",
        "it [came to|dawned on|occurred to|struck] {A} [between two steps|over a crust of bread|while lacing a shoe|in the middle of a yawn] at {P} that [it was time|one ought|somebody had better try] to {W}",
        "{A} [could think of nothing but how to|lay awake over how to|drew in the dust how to|asked everybody how to] {W}",
        "at {P} {A} [tied a knot in a cloth|cut a notch in a stick|turned a ring round|put a pebble in a pocket] so as not to forget to {W}",
    ),
    "finish": (
        "[it was done|there it was|so it had come about|that was that]: {A} [had wanted|had set out|had sworn|had hoped] to {V}, and [nothing of it was left to do|now it had come to pass|the matter was closed|it had happened]",
        "what {A} had [begun|taken on|dreamed of], to {V}, [found its end|came to a good end|was brought home|came true] at {P}",
        "at {P} {A} [struck it off the list|crossed it out|laid it aside with a nod|counted it as done], the [plan|wish|promise] to {V}",
        "{A} [leaned back|sat down on the nearest stone|took a deep breath|threw a hat in the air] at {P}; the [wish|plan|old longing] to {V} had [come true|been fulfilled|reached its end]",
        "the [knot in the cloth|notch in the stick|pebble in the pocket] of {A} [could be undone|had served its turn|was needed no longer] at {P}: no need any more to {V}",
        "{A} [needed no longer|had no more cause|was no longer bound] to {V}, and [smiled about it|sang about it|slept on it|told of it] at {P}",
    ),
    "give_up": (
        "{A} gave up the plan to {W}", "nothing came of the wish of {A} to {W}", "at {P} {A} had to admit that it would never come to this, to {W}", "{A} buried at {P} the hope to {W}", "it was no use, {A} would not {W} in this life", "{A} let go of the idea to {W}, {H}",
    ),
    "take": (
        "{A} bent down at {P} and picked up the {T}", "the {T} had lain at {P} long enough; {A} took it along {H}", "at {P} the {T} changed from nobody's to that of {A}", "{A} put the {T} into a bag at {P}, {H}", "{A} found the {T} where it had to be, at {P}, and kept it",
        "the {T} of {P} went with {A}", "{A} lifted the {T} from the ground of {P} and wiped it clean",
    ),
    "give": (
        "{A} held out the {T}, and {O} took it with both hands", "the {T} passed from {A} to {O} at {P}", "{O} had not expected the {T} from {A}, of all people", "at {P} {A} gave the {T} away, to {O}, {H}", "{A} pressed the {T} into the hand of {O}", "{O} turned the {T} over and over and thanked {A}",
    ),
    "drop": ("{A} laid the {T} down at {P}", "the {T} stayed behind at {P}, where {A} had put it", "{A} had carried the {T} far enough and left it at {P}"),
    "trade": (
        "{A} and {O} haggled at {P} until the {T} was worth the {G} to both", "the {T} of {O} went to {A}, and the {G} of {A} to {O}", "{O} let {A} have the {T} for the {G}", "at {P} a {G} changed hands for the {T}, and {A} and {O} both believed to have won",
        "{A} offered {O} the {G} for the {T}, and a handshake at {P} sealed it",
    ),
    "steal": (
        "{A} waited until {O} looked away, and the {T} was gone", "the {T} of {O} found its way into the sleeve of {A}", "at {P} {A} stole the {T} from {O}", "{O} would miss the {T} before long; {A} already ran with it",
    ),
    "beg": ("{A} asked {O} for the {T} and got it", "{O} could not say no to {A} and parted with the {T}", "it took {A} three tries, then {O} handed over the {T}"),
    "talk": (
        "{A} and {O} talked at {P} about nothing and everything", "{A} had a word with {O}, and it became two hundred", "at {P} {A} sat with {O} until both had said what there was to say", "{O} listened to {A} at {P}, {H}", "{A} fell into talk with {O} beside the road of {P}",
        "{O} told {A} more than was wise", "there was laughter when {A} met {O} at {P}",
    ),
    "greet": ("{A} had a kind word for {O} at {P}", "{A} nodded to {O}, and {O} felt the better for it", "a friendly greeting went from {A} to {O}", "{O} needed a kind word, and {A} had one to spare at {P}"),
    "befriend": (
        "{A} spent the hours at {P} with {O}, {H}", "{A} shared a loaf with {O} and asked for nothing", "{O} began to like the company of {A}", "{A} won a little more of the trust of {O} at {P}", "{O} laughed at a joke of {A}, which at {P} counts as much as a promise",
    ),
    "court": ("{A} asked {O} the great question at {P}", "{A} knelt before {O} at {P}, {H}", "with a stammer {A} asked for the hand of {O}"),
    "help": ("{A} rolled up both sleeves and helped {O} at {P}", "{O} did not have to ask twice: {A} lent a hand", "side by side {A} and {O} worked at {P}, {H}", "{A} stood by {O} when it counted"),
    "quarrel": ("{A} and {O} had words at {P}, and none of them kind", "{A} called {O} a name that stayed in the air of {P}", "at {P} {A} told {O} what had long been on the tongue", "{A} shouted at {O} until the dogs of {P} barked", "a quarrel broke out at {P} between {A} and {O}"),
    "reconcile": ("{A} held out a hand to {O}, and {O} took it", "at {P} {A} and {O} made their peace", "{A} said the hard word, sorry, and {O} heard it", "what had stood between {A} and {O} was laid to rest at {P}"),
    "invite": ("{A} asked {O} along, and both came to {P}", "{O} went with {A} as far as {P}", "side by side {A} and {O} walked to {P}"),
    "teach": ("{A} showed {O} the first steps of the craft of a {K}", "{O} learned from {A} at {P} what a {K} knows", "under the eyes of {A} the hands of {O} tried the work of a {K}"),
    "build": (
        "stone by stone and board by board {A} put up the {K} at {P}", "{A} built {T} at {P}, {H}", "where there had been only air at {P}, there was now the {K} that {A} had built", "{A} hammered until {P} had its {K}", "the {K} at {P} stands because {A} wanted it to stand",
    ),
    "repair": (
        "{A} mended the {T} of {P}, {H}", "under the hands of {A} the {T} at {P} became whole again", "{A} carried beams and patience to {P} until the {T} stood as before", "nobody would have guessed what had happened to the {T} of {P} once {A} was done", "{A} put the {T} at {P} right",
    ),
    "destroy": ("{A} brought down the {T} at {P}, and only rubble was left", "the {T} of {P} fell to {A}, beam by beam", "{A} broke the {T} and did not look back"),
    "burn": ("{A} set fire to the {T} at {P}, and it burned to the ground floor", "flames that {A} had laid ate the {T} of {P}", "the {T} at {P} stood black and smoking after {A} had been there"),
    "colour": ("{A} painted the {T} at {P} {K}", "the {T} of {P} is {K} now, thanks to {A}", "{A} did not put the brush down until the {T} was {K}"),
    "craft": ("{A} made the {T} with knife and patience at {P}", "out of odds and ends {A} made the {T}", "{A} worked at {P} until the {T} was finished, {H}", "the {T} came into the world at {P}, by the hands of {A}"),
    "cook": ("{A} stirred and tasted, and the {T} was ready", "the smell of the {T} that {A} made went through all of {P}", "{A} cooked the {T} at {P}"),
    "gather": ("{A} gathered what {P} gives, and had the {T} to show for it", "{P} let {A} have the {T}", "{A} searched {P} and came back with the {T}, {H}"),
    "dig": ("{A} dug at {P} until the {T} could be seen", "earth flew at {P}, and the {T} grew under the spade of {A}", "{A} worked on the {T} at {P}"),
    "plant": ("{A} planted the {T} at {P}, {H}", "with earth under the nails {A} gave {P} the {T}", "the {T} at {P} was no more than a promise when {A} straightened up", "{A} pressed the soil of {P} firm around the {T}"),
    "light": ("{A} lit the {T}, and {P} had a warm heart", "a spark, a breath, and the {T} of {A} burned at {P}", "the {T} threw the shadow of {A} on the ground of {P}"),
    "extinguish": ("{A} put out the {T} at {P}", "the {T} hissed and died under the foot of {A}"),
    "open": ("{A} opened the {T} at {P}", "the {T} gave way, and {A} looked inside", "with a creak the {T} opened for {A}"),
    "lock": ("{A} turned the key, and the {T} of {P} was shut", "the {T} at {P} stood locked after {A} had left it"),
    "enter": ("{A} stepped into the {T} at {P} {H}", "the {T} of {P} received {A} with the smell of old wood", "inside the {T} {A} waited until both eyes had got used to it"),
    "eat": ("{A} ate the {T} to the last crumb", "of the {T} nothing was left when {A} had done", "{A} sat down at {P} and enjoyed the {T}"),
    "climb": ("{A} climbed the {T} of {P} and looked far into the land", "from the top of the {T} {A} saw where the roads of {P} go", "breathless, {A} stood on the {T} above {P}"),
    "swim": ("{A} swam in the water of {P} {H}", "the water of {P} was cold and {A} was brave"),
    "hide": ("{A} found shelter at {P} and kept still", "nobody would have found {A} at {P}", "{A} crouched at {P} and waited {H}"),
    "avoid": ("{A} kept well away", "{A} would have nothing to do with it and stayed off, {H}", "{A} gave it a wide berth"),
    "refrain": ("{A} let it be", "{A} did no such thing, and stayed at {P} {H}", "nothing of the kind was done by {A}"),
    "stay": ("{A} stayed at {P} {H}", "{P} kept {A} a while longer", "{A} did not stir from {P}"),
    "rest": ("{A} rested at {P} {H}", "{A} sat down at {P} and let the world turn", "for a while {A} did nothing at {P}, and did it well"),
    "sleep": ("{A} slept at {P} and dreamed of things that nobody would believe", "{A} lay down at {P} and woke as somebody a little older", "sleep came to {A} at {P} like a cat"),
    "wait": ("{A} waited at {P}, and the hours went by", "{A} had time, and {P} had a place to sit", "nothing was asked of {A} at {P} but patience"),
    "perform": ("{A} sang at {P} until the last one hummed along", "a song of {A} went over the roofs of {P}", "{A} gave a performance at {P}, {H}", "whoever was at {P} stopped to hear {A}"),
    "pray": ("{A} grew quiet at {P} and thought of many things", "with closed eyes {A} stood at {P} for a while", "{A} thought it over at {P} {H}"),
    "feel": ("{A} could not hold it back any longer at {P}", "{P} saw {A} as one seldom sees anybody", "{A} did so at {P}, {H}"),
    "write": ("{A} wrote at {P} until the {T} was done", "the {T} took {A} three drafts and a spoiled sleeve"),
    "read": ("{A} read the {T} at {P}, {H}", "{A} bent over the {T} and forgot {P}"),
    "search": ("{A} searched {P} from end to end", "{A} turned every stone of {P} over", "{A} looked for it at {P} {H}"),
    "look": ("{A} looked about at {P}", "{A} took a long look", "{A} stood still at {P} and looked {H}"),
    "ask": ("{A} asked about it at {P}", "{A} wanted to know", "a question came from {A}"),
    "remark": ("{A} said so at {P}, to nobody in particular", "{A} remarked on it and left it at that", "so spoke {A}, and {P} kept quiet"),
    "arrive": ("a stranger came to {P}: {A}, a {K} by trade", "{P} had a new face, that of {A} the {K}", "{A}, a {K}, put a bundle down at {P} and asked for a bed"),
    "depart": ("{A} the {K} left the land by way of {P} and took no leave", "nobody at {P} will see {A} the {K} again", "the place of {A} at the table of {P} stayed empty"),
    "lose": ("{A} lost the {T} at {P} and did not notice at once", "somewhere at {P} the {T} slipped from the bag of {A}", "the {T} of {A} lay on the ground of {P} now, and {A} searched every pocket"),
    "discover": ("{A} found a way {D} from {P} that was on no map: it leads to {T}, {L}", "beyond {P}, {D} of it, {A} came upon {T}, {L}", "nobody had ever named the land {D} of {P}; {A} called it {T}, {L}"),
    "weather": (),
    "damage": ("lightning found the {K} of {P}, which stood {S} afterwards", "the storm left the {K} at {P} {S}", "when it was over, the {K} of {P} was {S}"),
    "go_out": ("the fire at {P} went out", "of the fire at {P} only ash remained", "the fire of {P} sank into itself and was gone"),
    "ripen": ("the {T} at {P} bore its first fruit, an {G}", "at {P} the {T} let an {G} fall into the grass", "under the {T} of {P} lay an {G}, ripe and red-cheeked"),
    "wash_ashore": ("the water laid the {T} on the bank of {P}", "at {P} the {T} came ashore, nobody knew from where", "the {T} drifted in and stayed at {P}"),
    "decay": ("the {T} at {P} had had its time and fell to pieces", "rot and rain took the {T} of {P}", "of the {T} at {P} only a stain remained"),
}  # fmt: skip
"""Past tense, without the full stop."""

RECALLED: dict[str, tuple[str, ...]] = {
    "burn": ("since {A} had [set the {T} of {P} on fire|laid fire to the {T} at {P}|left the {T} of {P} in ashes]", "for the {T} at {P} that {A} had [burned|put to the torch]"),
    "destroy": ("since {A} had [torn down|broken|levelled] the {T} of {P}", "for the {T} that {A} had [broken|brought down] at {P}"),
    "damage": ("[since|ever since] the storm had come down on the {K} of {P}", "after what [the sky|the lightning|that one night] had done to the {K} at {P}"),
    "steal": ("[since|ever since] {A} had [stolen|run off with|pocketed] the {T}", "for the {T} that had vanished with {A}"),
    "quarrel": ("after the [hard|sharp|unkind|loud] words of {A} at {P}", "[since|ever since] the quarrel that {A} had [begun|picked|wanted] at {P}"),
    "give": ("in [memory|honour|exchange] of the {T} that {A} had [given|let go of]", "[since|now that] the {T} had come from the hands of {A}", "[mindful of|moved by|on account of] the {T}, a gift of {A}"),
    "help": ("since {A} had [helped|been there] when [help was needed|it counted|others were not]", "out of gratitude for what {A} had done at {P}"),
    "talk": ("[since|after] that talk with {A} at {P}", "as the words of {A} at {P} [had not been forgotten|still rang in the ear|had struck home]", "[because|for] {A} had [listened|talked sense|asked the right questions] at {P}"),
    "befriend": ("for {A} had been [good company|a merry companion|easy to laugh with] at {P}", "since [the hours|an evening|a shared meal] with {A} at {P}", "[fond of|used to|cheered by] {A} [since {P}|by now|already]"),
    "greet": ("since [a kind word|a nod|a smile] of {A} at {P}", "for {A} had been [friendly|kind|decent] once at {P}", "[warmed|encouraged|won over] by {A} at {P}"),
    "reconcile": ("since {A} had made peace at {P}", "now that {A} had [said sorry|offered a hand] at {P}"),
    "trade": ("[since|after] the {T} had gone to {A} [at {P}|in a bargain|for little enough]", "after [that bargain|some haggling|the handshake] of {A} at {P}", "the {T} being [with|in the keeping of] {A} [now|since {P}|these days]"),
    "build": ("since {A} had [built it|put it up|laid the first stone] at {P}", "on what {A} had begun at {P}"),
    "plant": ("where {A} had once [planted it|pressed it into the soil]", "thanks to {A}, who had dug the earth of {P}"),
    "lose": ("[since|after|because] {A} had [lost|mislaid|dropped] the {T} at {P}", "for the {T} had [slipped away from|fallen from the bag of|got away from] {A} at {P}"),
    "wash_ashore": ("since the water had [brought it to|left it at|given it up at] {P}",),
    "ripen": ("since the {T} of {P} had [borne fruit|come into fruit]",),
    "light": ("which {A} had lit at {P}",),
    "arrive": ("since {A} had come to {P}", "{A} being [new|a stranger] at {P}"),
    "depart": ("since {A} had left {P} for good", "with {A} gone from {P}"),
    "want": (
        "true to the [plan|vow|word] of day {N}", "as [resolved|intended|promised|sworn] on day {N}", "[remembering|keeping|honouring] the resolution of day {N}", "with [the vow|the plan|a decision] of day {N} in mind",
    ),
    "repair": ("since {A} had [mended|seen to] the {T} of {P}",),
    "craft": ("since {A} had [made it|finished it|cobbled it together] at {P}",),
    "gather": ("since {A} had brought it from {P}", "fresh from {P} by way of {A}"),
    "take": ("since {A} had [picked it up|found it|taken it along] at {P}", "the {T} being with {A} since {P}"),
    "perform": ("with the song of {A} still in the ear",),
    "court": ("since {A} had asked the great question at {P}",),
    "teach": ("since {A} had shown how it is done", "with the lesson of {A} in both hands"),
    "finish": ("now that {A} had come to an end with [it|the other matter]",),
    "give_up": ("since {A} had let the plan go",),
    "weather": (),
}  # fmt: skip
"""How an earlier event stands behind a later one, as a clause at the end."""

WEATHER_TURNS: dict[str, tuple[str, ...]] = {
    "clear": ("the sky cleared over {P}", "the {Z} drew off and left {P} in clean light", "above {P} the last of the {Z} went to pieces"),
    "cloudy": ("clouds moved in over {P}", "the sky above {P} filled with clouds", "where the {Z} had been, clouds stood over {P}"),
    "rain": ("it began to rain at {P}", "the first drops of rain fell on {P}", "rain reached {P} in the end"),
    "snow": ("it began to snow at {P}", "snow came down on {P}, first in single flakes", "{P} went white under the first snow"),
    "fog": ("fog rose and took {P} in", "out of the low ground fog crept over {P}", "one by one the things of {P} went into the fog"),
    "storm": ("a storm broke over {P}", "what had been rain became a storm at {P}", "thunder announced the storm, and then it was over {P}"),
}  # fmt: skip
SKY_NOUN = {"clear": "clear sky", "cloudy": "clouds", "rain": "rain", "snow": "snow", "fog": "fog", "storm": "storm"}

REFUSED = (
    "It could not be: {B}.", "Nothing came of it, for {B}.", "But {B}.", "That had to stay undone: {B}.", "There was no way, since {B}.", "The world would not have it; {B}.",
)  # fmt: skip
PARTLY = ("But not all of it: {B}.", "It went only so far, for {B}.", "Half of it was done; {B}.", "For now that was all, as {B}.")
UNCLEAR = ("Nobody could make anything of it: {B}.", "Heads were shaken: {B}.", "It stayed a riddle, for {B}.")
TRIED = (
    "{A} [wanted one thing|had one thing in mind|set about it|would not be talked out of it]: “{X}”.",
    "“{X}”, was the [plan|wish|word|resolve] of {A} at {P}.",
    "At {P} {A} [tried it|gave it a try|made the attempt]: “{X}”.",
    "“{X}” — so {A} [began|put it|resolved] at {P}.",
)
ASKED = (
    "“{X}” [asked|wondered|wanted to know] {A}.",
    "At {P} {A} [asked|put the question]: “{X}”",
    "There was a question on the lips of {A}: “{X}”",
)
SAID = ("“{X}”, [said|remarked|observed] {A} at {P}.", "“{X}” — {A} said it [aloud|to nobody in particular|into the air] at {P}.")
ANSWERED = ("{Y}.", "So much is known: {Y}.", "The answer was soon given: {Y}.", "{A} learned it: {Y}.")

ON_THE_MIND = (
    "{A} had not been [quite the same|so easy to talk to|without worries]",
    "{A} [often|seldom|now and then] looked down the road",
    "{A} slept [badly|little|like a stone]",
    "{A} counted the days [differently|more slowly|on all fingers]",
    "there was [a line more|something new|a shadow] in the face of {A}",
    "{A} listened when others spoke",
    "[much|a good deal|more than usual] went through the head of {A}",
    "{A} kept [a light in the window|an ear open|the door unlocked]",
)
"""What somebody has on their mind, to stand before a clause of :data:`RECALLED`."""

NEWS = (
    "“[Have you heard|Do you know|You will not believe it|Listen|They say|Keep it to yourself]: {N},” [said|whispered|began|reported|put in] {O}.",
    "{O} [knew|had news|could tell more]: “{N}.”",
    "“{N},” said {O}, “[or so they tell it|and that is the truth|believe it or not|as sure as I stand here|I saw it myself, nearly].”",
)
"""How somebody passes on what they know; ``N`` is the news."""
WISHES = (
    "“[One day|Before the year is out|You will see|Mark my words|Laugh if you like], I [shall|will|mean to] {W},” [said|confided|declared|murmured] {A}.",
    "“[What would you do|Be honest|Tell me]?” asked {A}. “I [want|have|hope] to {W}.”",
)
"""How somebody speaks of what they want."""

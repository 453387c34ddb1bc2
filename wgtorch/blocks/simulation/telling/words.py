"""Words of the telling: what lands, hours and skies are made of, and how things are done. Plain data.

Whatever names an hour or a weather stands under that hour or weather, so that a telling never says another than the clock.
"""

from __future__ import annotations

LAND = {
    "sea": (
        "tide foam kelp harbour-stones gulls shingle driftwood breakers salt-grass rock-pools fishing-nets dunes seals mussels spray surf"
    ).split(),
    "river": (
        "reeds willows ripples stepping-stones eddies kingfishers rushes ferns sandbanks water-lilies dragonflies alders "
        "pebbles otters currents"
    ).split(),
    "meadow": (
        "clover barley buttercups grasshoppers larks hedges beehives thistles poppies haystacks cornflowers crickets stubble furrows yarrow"
    ).split(),
    "hills": (
        "heather sheep-paths bracken cairns gorse hollows hawks slopes terraces drystone-walls broom lambs ridges burrows juniper"
    ).split(),
    "mountains": (
        "boulders scree eagles goat-tracks ledges pines echoes icicles gullies marmots cornices peaks waterfalls gentians crevices"
    ).split(),
    "desert": (
        "dunes lizards thornbushes salt-pans mirages scorpions caravan-tracks sandstone cisterns palms bones ripples cactuses gravel wadis"
    ).split(),
    "forest": (
        "oaks moss brambles mushrooms squirrels roots birches woodpeckers ivy acorns pine-needles foxgloves owls hazels fallen-trunks"
    ).split(),
    "marsh": (
        "bulrushes frogs will-o'-wisps peat herons puddles midges cotton-grass toads sedges stilts black-water snails bitterns alder-stumps"
    ).split(),
}
ADJECTIVES = (
    "old pale crooked patient tangled silver quiet ragged drowsy stubborn thin bright hollow restless tall bent scattered "
    "soft stiff solemn nameless speckled lonely narrow heavy gentle bitter sweet slow brittle tidy wild half-forgotten "
    "weather-worn moss-grown sleepy watchful unhurried rust-coloured honey-coloured long-legged thick glassy ashen copper"
).split()
VERBS = (
    "leaned over|whispered to|closed around|kept watch over|reached for|crowded|hid|framed|brushed against|half covered|"
    "gave way to|shone beside|rustled along|bordered|drew a line across|trembled at the edge of|smelled stronger than|"
    "hemmed in|lay scattered across|crept towards|outnumbered|nodded above|fell silent around|pointed at|muffled|marked|"
    "guarded|sloped away from|ringed|settled on"
).split("|")
SPOTS = (
    "the path|the road|the old boundary stone|a forgotten cart|a fallen gate|the last fence|a row of posts|the turning|"
    "the place where two ways meet|somebody's footprints|a broken wheel|the remains of a camp|a flat rock|a small mound|"
    "the beaten track|a bench that nobody used|an empty nest|a pile of stones|the wayside|a dry ditch|the trodden ground|"
    "a leaning signpost|the far bank|a charred stump|an abandoned kiln|a tethering ring"
).split("|")
SKY = {
    "clear": (
        "[not a cloud|not one cloud|no cloud at all] [stood|hung|showed itself] [anywhere|between the horizons|over the land]", "the air was as [clear as glass|dry as chalk|light as a feather|still as a pond]",
        "the sky [had been swept clean|was washed and bare|was empty to its edges|stood wide open]", "every [edge|outline|ridge|twig] was sharp under the [open|clear|bare] sky",
        "the [clear sky|clear air|open sky] [went on without end|made everybody squint|had room for every bird|seemed higher than usual]", "one could see [three days|as far as one can think|to the rim of the world|every roof for miles] in the clear air",
    ),
    "cloudy": (
        "clouds [slid|shuffled|drifted|crept] over one another like [slates|sheep|old men|barges]", "a [lid|ceiling|blanket|roof] of cloud [lay|pressed|rested|sat] on [the land|the hills and roofs|everything]",
        "the light came [grey|thin|pale|tired] [from nowhere|through the clouds|from all sides]", "the clouds hung [low|still|heavy|ragged] and [undecided|grey|full of thoughts|in no hurry]",
        "[grey upon grey|cloud upon cloud|a herd of clouds] [drifted by|went over|passed without a word]", "the clouds had the colour of [old tin|dishwater|pigeons|wet slate]",
    ),
    "rain": (
        "rain [drummed|pattered|knocked|hammered] on [everything that was hollow|roofs and hats|leaves and lids|barrels and backs]", "the rain [came down in strings|fell straight and grey|had no end and no beginning|would not let up]",
        "water ran [from every leaf and hat|in the ruts|down every neck|off the eaves] in the rain", "the rain wrote [small circles|rings|hurried letters] [everywhere|on each puddle|on the water]",
        "a [steady|thin|warm|cold|slanting] rain blurred [the distance|the far side|every outline]", "rain [hissed|whispered|rustled] in the [grass|leaves|dust]",
    ),
    "snow": (
        "snow fell [without a sound|in thick flakes|slantwise|as if by the sackful]", "flakes settled on [sleeves and eyelashes|hats and handles|every twig|the backs of animals]", "the snow [made all things round|hid the ruts|lay ankle-deep|gave back what light there was]",
        "each step [creaked|crunched|sank] in the snow", "the snow had [swallowed the road|muffled every voice|covered all tracks|put a cap on each post]", "white flakes [spun|drifted|danced] in [slow circles|the still air|front of every face]",
    ),
    "fog": (
        "fog had taken [the distance|the hills|the far end of everything] away", "shapes [came|loomed|stepped] out of the fog and [went back into it|were gone again|turned out to be bushes]", "the fog [beaded on wool and hair|crept into sleeves|tasted of nothing|stood still]",
        "in the fog every [voice|step|bark] seemed [near|to come from behind|muffled]", "the fog let nobody see further than [a stone's throw|the next post|an outstretched arm]", "fog lay in the hollows like [milk|fleece|an unmade bed]",
    ),
    "storm": (
        "a storm [pulled|tore|tugged] at everything that was [not tied down|loose|young or old]", "thunder [walked|rolled|stumbled] over [the land|every roof|the hills and away]", "lightning showed the land [in pieces|for half a breath|white as bone]",
        "the storm tore [words from the mouth|hats from heads|leaves from twigs]", "the storm bent [whatever could bend|trees and backs|all that stood]", "thunder shook [dust from the beams|the cups|the ground]",
    ),
}  # fmt: skip
WHEN = {
    "dawn": (
        "At dawn", "In the first light", "Before the dew was gone", "While the morning was still grey", "At daybreak", "Early in the morning",
        "As the sun came up", "When the first cock had crowed", "With the sunrise", "Before breakfast",
    ),
    "day": (
        "In broad daylight", "Around noon", "In the middle of the day", "In the afternoon", "While the sun stood high", "By day", "Between two meals of the day",
        "When shadows were shortest", "Well into the day", "As the day wore on",
    ),
    "dusk": (
        "At dusk", "In the evening", "As the sun went down", "When the first windows were lit", "Towards nightfall", "In the last light", "As shadows grew long at sunset",
        "At the end of the day's work", "While the evening bell could still be heard", "Between sunset and dark",
    ),
    "night": (
        "At night", "By starlight or none", "Long after dark", "In the dead of night", "While others slept in the dark", "Around midnight", "In the small hours of the night",
        "Under the turning stars of the night", "When only owls of the night were about", "Deep in the night",
    ),
}  # fmt: skip
HOW = {
    "calm": "without haste|in no hurry at all|step by step|with steady hands|as one does a thing done often|without saying much|taking care|humming under the breath|with an even mind|and thought no more of it|counting the steps|with pauses for breath|as if there were all the time in the world|chewing a blade of grass|at an even pace|with half a thought elsewhere|and noticed the small things|whittling on the way",
    "glad": "with a light heart|whistling|with something like a dance in the step|and laughed about it|with both hands full of good will|as if on a feast day|grinning from ear to ear|and told everybody twice|with shining eyes|swinging both arms|and greeted even the hens|humming the wrong tune|with crumbs on the chin|as light as a feather|with a wink",
    "sad": "with a heavy heart|looking back more than once|without a word|with slow feet|and found no comfort in it|as if it hardly mattered|staring at the ground|swallowing hard|and sighed like a bellows|and kept the collar up|dragging a stick through the dust|as one leaves a feast too early|and answered nobody|with a lump in the throat",
    "angry": "with clenched teeth|stamping|and slammed whatever could be slammed|muttering all the while|with a face like thunder|red to the ears|and would not be spoken to|kicking every stone on the way",
    "afraid": "glancing over one shoulder|with a beating heart|holding tight to whatever was near|on tiptoe|starting at every sound|with cold fingers|and wished it were over|whispering",
    "proud": "with a straight back|and wanted everybody to see it|chin in the air|as if for a statue|with great care for how it looked|and bowed to nobody in particular|like somebody who has earned it|and looked around for applause|whistling through the teeth|two steps at a time|and made a mental note of the hour|with sleeves rolled up|and would do it again|as if it were nothing|with a nod to the sky|polishing a button|on the stroke, or nearly|and thought of songs to be written|with long strides",
    "curious": "looking into every corner|with a hundred questions|stopping at each odd stone|and wanted to know how it worked|with a tilted head|peering about|as one opens a letter|counting things along the way|and took notes in the head|with a finger in every crack|turning things upside down|sniffing the air|asking the sparrows",
    "weary": "yawning|on sore feet|leaning on whatever offered itself|with half-closed eyes|and sat down as soon as it was possible|dragging one leg",
    "ashamed": "with burning cheeks|avoiding all eyes|as quietly as possible|hat pulled low|and hoped that nobody had seen|mumbling an excuse",
    "hopeful": "with a new plan in mind|counting on better days|as if something good were around the corner|with a small smile|and knocked on wood for luck|looking ahead|believing it for once|with fingers crossed|and tried not to hurry|whistling a beginning|with the best intentions|eyes on the horizon",
}
HOW_LISTS = {mood: phrases.split("|") for mood, phrases in HOW.items()}
GROWS = (
    "smelled of|tasted of|had the colour of|made one think of|kept the warmth of|were as old as|gave off a whiff of|"
    "lay there like|looked like|rattled like"
).split("|")
LIKENESS = (
    "wet wool|old letters|a cellar|cold iron|fresh bread|a sleeping dog|burnt sugar|church candles|somebody's grandmother|"
    "a drawn curtain|unpaid bills|spilled ink|a held breath|smoke from far off|a closed book|bitter almonds|"
    "a borrowed coat|boiled milk|wax and honey|a lost glove|new rope|a broken promise|feathers|tin soldiers|rust|"
    "a kettle before it sings|nutmeg|yesterday|leather|old songs"
).split("|")
LINKS = (
    "Meanwhile",
    "Elsewhere",
    "In the meantime",
    "Not far from there or very far",
    "And as so often",
    "That same day",
    "Beside all this",
    "Nobody planned it, but",
    "On another path",
    "As it happened",
)

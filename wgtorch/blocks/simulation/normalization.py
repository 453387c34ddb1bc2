"""A typed line in the words that the rules read: written out, misspelled words mended, passive voice made active."""

from __future__ import annotations

import re
from functools import lru_cache
from string import ascii_lowercase

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.cast import NAMES, ROLES
from wgtorch.blocks.simulation.inflection import IRREGULAR, forms
from wgtorch.blocks.simulation.leads import FIRSTS, LEADING
from wgtorch.blocks.simulation.phrases import PHRASES, PREPOSITIONS

_SMALL = (
    "and or but then than here there it he she we you they i me us him her them his our your their its zero six seven eight nine ten eleven "
    "twelve twenty thirty fifty hundred thousand million dozen what where who whom whose why when which how is are am was were be been do "
    "does did has have had will would can could shall should may might must not never no nobody nothing nowhere everybody everyone "
    "everything somebody someone something anybody anyone anything if unless while because so too very much many more most all both first "
    "second third again once today tomorrow yesterday soon later now hour hours night nights week minute minutes mile miles friend mother "
    "father brother sister king queen guard story back home away people old new big small little one two three four five name names person "
    "child children boy girl man men woman women son daughter wife husband baby family life death body hand hands face eye eyes head hair "
    "foot feet arm leg voice word words idea thing things way ways day days year years month part side end top bottom line point case fact "
    "group number problem question answer work job game party war peace power money law truth lie joke news reason secret care sure true "
    "false good better best bad worse worst great long short high low early late young strong weak rich poor happy sad angry hungry thirsty "
    "tired sick ill well hot cold warm wet dry dark loud soft hard easy fast slow full empty clean dirty ready busy free safe nice kind mad "
    "crazy funny pretty ugly know think see come want use find tell ask seem feel try leave call became become keep let begin began show "
    "hear play move live believe bring happen write provide sit stand lose pay meet include continue set learn change lead understand watch "
    "follow stop create speak read allow add spend grow open walk win offer remember love consider appear buy wait serve die send expect "
    "build stay fall cut reach kill remain suggest raise pass sell require report decide pull left right said went gone got gave took made "
    "came saw done seen given going doing being having ago ever always often usually sometimes maybe perhaps really only just even still "
    "also yet already almost enough quite rather next last same other such own another each every few less least half whole nearly up down "
    "out off over under further car road street room floor wall window kitchen school office phone music movie picture color paper pen cup "
    "glass bottle plate bowl spoon fork meat milk tea coffee wine beer salt sugar rice shirt shoe shoes boot boots dress ship train plane "
    "horse bird cow lion tiger snake spider rat bat bee ant ghost witch giant elf dwarf troll devil angel god lord lady prince knight thief "
    "pirate soldier doctor teacher stranger enemy neighbour hero traveller villain crowd town city village country land island earth ground "
    "air sky space nature season spring summer autumn winter monday sunday date hope fear dream wish luck magic spell hotel peach stairs "
    "flood flesh clock frown clown brown crow peas beans cheek chess choir chair potion weapon armor armour shield gun spear arrow trap "
    "prison cell dungeon throne crown gem jewel pearl silver"
).split()
_REAL = frozenset(
    (
        "abide abjure abode abort abound abut accent acct aches action adapt adept admin adobe adventure adventures advice aground ague "
        "aide alias aline allays alloyed aloe alright among amply angle antagonism antagonist anther apologias apologies apologist appal "
        "apprise apter aptly aright armrest ascent asses aster atlas atone attach attar auger avid awake babysat bade badge baldly "
        "banker banter barbeque barber barbs bards barley baron basely basins basis basked bast batch bate bauble bead beak beaning "
        "beatify beaus bedside beet begat beheld belle bellow below bend beset besot bestrode beta betide bets betted bettor bidet biker "
        "bilge billow billy bingo birth bittern blanch bland blank blare blats bleach bleak bleat bled bleed blench blent blest blind "
        "blink bliss bloat bloc block blocs bloke blond blood blot bluish blunt blur blurb blurs boar boast bobble bogie bondage bookie "
        "boost booth bootie borne botch bough boughs bowel brace bracken bract brad braise brake bran bras brash bravery bravo brawl "
        "brawn breach breadth breathier bred breed bridle brig brighter brine brinks briny brisk brisks brittle broad broil brooch brood "
        "broom broth brow bruin bruins brunch brunt brusk bubble bucked bugged buggier bugging bugle bulgy bulky bull bunch bungle bunt "
        "burble burro burros burst bushiness bust busyness butches butler butt butte butteries bypast cabbing cadre cage cal calve "
        "camber camel cameo cancer candies cane canker cannon cant cantor cape carat carets carousel carping catnip cattle causal center "
        "certainty chafe chain chaise chamber chammy champ chapt chapter charge chaste chaster chattel chattier cheap cheeps chewers "
        "chile chili chilli chime chimp china chink chino chins chirp chive chock chomp choose chorale chord chorus chump chunk churl "
        "circlet clam clamping clank clarity clash clashing clasp clatter clause cleansing cleaver clime clinch clink clod clods clomp "
        "closet clot clothe clout clouts clover cloyed coarse cock cockle codex coed coifs coils coke col colon combo comet commando "
        "commend commute compete complaint complement comport compost compote conceit concept concern concerti concerto condole cone "
        "confers confidant confine confuse confuser confuses confuted congeal conifer cons constrict consul consuls cont continua "
        "contrite contused convent converge convert convex convoy coons cooper cop cored cores corns cosign cost couch course cove coven "
        "covert coves covet covey coyer crackle cramp crank crape crash crass crate crave craw craws craze creak crease cremate crepe "
        "cress crest cribbing criticism croak crock crone crook cropper crops crotch crotchet cruft crummy crust crypt cunt curdle curie "
        "curios curry curst curt curtail curtails curtain curve cusps daft dairy damped damper danger dank daydreamt dding dealt dearth "
        "debar debase debit debut decade decal decode defame defer deftest deice deify deign deject dell demise depend deport depth "
        "deride derision derive descent despise dessert deter determine determines detour device devout digest diking dill ding dink "
        "dinker dinned dirt discord discs disks disperse distil distils ditty divert divine doable doers doles doling domes doming dong "
        "dongle donor dopes doping dose doses dotes doting doublet doves dowse draft dragoon drain dram draping drawl dregs dripping "
        "drivel droll drone droop dross drove drudge dryad dudes dues dukes dunce dunces dunk dunner dupes duping duress dwelt ease "
        "easel edger eery eject elect elide emery employe empress encrust engage enraged enroll entourage envoy escapee esquire ether "
        "excerpt exist exorcise expend extent exude facet fades faeces fainest faint fakes fakir fantasies farce farther fats "
        "fatten faxes fazes feat feces feint fella fellow fest feted fetich fiats fiends filed filet filing filly filth finch finders "
        "finis finnish finny fiord firth fishier fits fjord flail flair flak flake flakes flambes flamers flank flare flares flash flat "
        "flatter flavor fleck flit flock flours flout flowed flown flue fluke flume flung flunk flutter fogey foist folds fond fondue "
        "foray foraying forebear forego forgave forgo form forte forth forum foully fouls fount fourth frail frat freshet freshmen "
        "frieze fright frill froth fuddle fueling funky furbish furs gable gaggle gallon gamin gaps garb garble garotte garrote gaunt "
        "gauze gavel gender gentle gentry gill girt glade gland glaze gleam glen glide gloat gloss glove glowed gluts goads gong gore "
        "gores goring gorse gouge gown graceful graft grander grape grate grave graze grid grille gripe grist groin groove grope grovel "
        "guest guests guile guise gust gusts hackle haler haling hallow halve halving hammed hamper hanker hanks hans hardest hardily "
        "harem haring harpy harry hart haste hatched hatches hath haunt haunting havens hawing haying hazel hearth heath heaved heaves "
        "heaving heist hell herds heresy herr hied hilts hinds hinting hippy hitch hitches hiving hoard hoarse hod hoeing hoes hokey "
        "holier homie hone honesty honing honor hooey hoop hoorah horde hoses hosing host hove hover huddle hulls hunker hurtle husker "
        "hutch hyping hypnotism hypnotist hypnotize ideal identity idiom imaging impact impala import incest incite incline inclines "
        "indent infer infest infirm insect insure intel intense intent interj intro inure invention inventions inventor invert invest "
        "irrigate jangle jiggle jingle jocks joggle joint joist jokers joust juts keel kinda kissers knack knee knees knuckled lair "
        "lallygag lapse larder laterally latex lath lathe lather latte latter launch leapt learnt lease leash ledge leer leis leper lept "
        "lesion lesions lessens lessor lessors lest levee lever lexer liberally lief liens lightening limber limes liming linker lira "
        "lisp lisps locales lockout lode loge logos lonely loner looming looping loose loth louse lubber lumbar lung lunge lurch lynch "
        "manic marks marrow marts mash massage master masts match math matte matted mattes meant medal mediate medicate memories merry "
        "mesas metal mete middy midst midway mien mil milder millet mince minis minks minster mints minty minuet minus miser misplay "
        "moaning moans mod modest moire moles mon monkey mono mooed mooing moron mosey mossy moth motor mouse mousey mulch muscled muter "
        "nattier navel naves nestle nether newts nicety niche niece nimble nites noel noes noise nonce noose noshing notching novice "
        "nozzle nude nybble oaten ocher odder ornate otters ounce outran outsize overate overbear overhead overheat oversight overt "
        "overthrew overture packet pagers pails pains palate pall palms pamper pander panning panty parch parity parlay parry parse "
        "parsley parson pasta paste patent patently path patron paunch pauper pawls payers pealed peals pears pecks peddle peeved pence "
        "peony pep per perks perter petrol pewter phage phages picket pickling piddle pieced pierces piety piking pilot pith plaice "
        "plaids plaints plaits planking plea pleat pleated pled pliant plonks plotter plump plunger plunk plunks plush plying pocked "
        "pocking poise pommel pone pop porch porter posit positron posture pottier powder pranks premise preps preset preys prick pride "
        "prime prise prism prize probable process product project prone prose protest provably prow prowess prows prude puck puddle "
        "pulse punk pupal pupped pure puree purer purge purse putt quack quaver ques quilt quine quire quirk quoit quote raiding railing "
        "rally rasher rave ravel react realty rebel rebuilt recap recipe rectal reefs reeks reelect reels reenforce refuge refugee "
        "refurnish refute regal regally reheat rehire reining reins relay relied relies remand remit remotes remover rends repaid repeal "
        "repel repent reprieve reprint resale resent resort respelt restraint retain retard retch retiree retort retract retrain retread "
        "reuse revere revery revive rewire ricky ridge rife rifer riffle rile riles rise risk rivet roach robot rodeo roes rooks roost "
        "rot rotund rouse route rover ruble rued rues rulers runnel runnier ruse sable sacred sage sagest saith sale sallow salve salver "
        "sanely sanest sapling sarape sarong satay sate satin satrap savage savior saviour scalp scam scant scar scarce scarf scarred "
        "scatted scatter scent scone scones scooting scored scotch scott scour scow scows scrabble scram scroll scruff scuff scuffle "
        "scupper scurfy scurvy seams seared sears seats secrete seeping seeps seers selvage semen sepal sera serape sere serge serum "
        "servo settee sexed shack shaft shale shallow shalt sham shapelessly shark sharp shat shawl sheaf sheath sheave shelf sherd "
        "shills shimmer shimming shirk shit shlep shock shooing shook shoon showier showman shrew shrewd shrift shrike shrink shrive "
        "shrove shtick shuck shuttle sidle sift sight silky silt simile simper simple sine singeing singling sinner sinning sire sitar "
        "sitars size skate skeet skein skiff skill skimming skimp skit skulk skull skunk slack slake slang slave sleds sleek sleeting "
        "slender slice slick slight slights slily slime slimmer slimming sling slit sliver sloes sloop slopping slosh slug sluice sluing "
        "slum slummer slums slur slurs slush smelt smock smoke smoother smuggest smuggle snag snail snared snark sneer snide snip snipe "
        "snoop snoot snoring snot snowball snuck snug snuggest soiling solar sole soli solid solver sonar soot sooth sopping sorely sort "
        "sough soughs sour sowers spake spammer spans spared spark spars sparse spate spatter speck speeds spent spiel spilt spindle "
        "spine spirea spite splash splat splay splice splint spoil spook spoonsful sporing sport spout sprat spreed sprig sprint "
        "sputters squab squabs squad squads squaw squaws stack stag stage stake stale stank staph starch stark starlet starve stat state "
        "stature statute stave stead steam steed steep stein stems stent stile stilt sting stink stirs stock stoke stokes stoners stool "
        "stoop storing stoves stowing straggle strain strait strand strange strap strategies strategist stray streak strep strew stripe "
        "stript strop strung strut stubble stuck stud stung sturdy stutters style suave submit subset suck sully sump sunk super supped "
        "supple suppler suppose surety surge surprise surprises surrey svelter swaddle swagged swami swank sward swarm swat swatter "
        "swell swells swelter swerve swift swill swing swivel swoon swoop swopping swung tablet tabus tack taint takers tamp tamper tang "
        "tank tanker tanks tardy tarot tarp tars taut teaks teals teasel teat teats tech teems teen tees teethe tel temped tempera "
        "tempter tenet tense tenth terns terrifies terry terse testily thee theme thinning thins thong thorn thorough thous thrash "
        "thread threat throb throe throughput thrust thuds thugs thump thumps thunks tick tikes til timbre tinder tine ting tingle "
        "tinier tinkle tipple tiptop tirade tire tires tittle toady toddy tolling tooth torrent tort torte tost tot totem totted tough "
        "towel tracts trail trait tram tramp trams trance treas treble trend tress triad trial tribune trickle trill tripe trough trout "
        "trowel truce truck truest trump truss tryst tsars twaddle twain twill twinge twit twits tying tykes tzars udder unbend unbind "
        "unblock underline unite unkind unpick unreal unseat unset unsold untold upturned usable vandalism varnish vaunt vice violent "
        "voile wack wafting waggle waist waive wallow walter wanks warder warez warp warship waster wedgie weed weer wench wetness wheal "
        "wheat whenever whimper whir whirr whirs whisker whist whit whither whomever whore whorl wicks widow width wight wild wiled "
        "wiling wilting wilts winch winos wires wiring wist withdrew withheld witless wive wong woofs worming worms wormy woven wrapt "
        "wreak wrest wretch wright wring wrist writ writhe wroth wrung yokel"
    ).split()
)
"""Words that stand near another by their spelling and are meant as they are."""
_PASSIVE = re.compile(
    r"^(?:let |may |might |please |i want |have |i order |i demand |now )*(?P<what>(?!to\b|i\b(?! (?:want|wish|would|ought|must|should|have|need))).+?)\s*"
    r"(?P<modal>should|must|has to|have to|ought to|needs to|need to|shall|is to|are to|will|can|may|)"
    r"(?P<no> not| never)? ?\bbe (?P<done>\w+)(?P<rest>.*)$"
)
_CAUSED = re.compile(
    r"(?i)^(?:please |now )*(?:i |we )?(?P<no>(?:do not |never ))?(?:have|get|want|need|would like|must have)(?: to (?:have|see))? "
    r"(?P<what>(?:the|my|our|this|that|his|her|your) [\w'-]+(?: [\w'-]+)?) (?P<done>\w+(?:ed|en|t|d|ne|wn|ung|ut))(?P<rest>(?: .*)?)$"
)
_AGENT = re.compile(r" by (?:me|us|you|somebody|someone|anybody|people|them|him|her)\b")
_SELF = re.compile(r"^(?:i|we|me|us)(?: (?:want|wish|would like|ought|need|have|would love))?(?: to)?$")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SAID_SHORT = {
    "i'm": "i am", "im": "i am", "let's": "let us", "lets": "let us", "can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not",
    "ain't": "am not", "gonna": "going to", "wanna": "want to", "gotta": "have to", "lemme": "let me", "gimme": "give me", "hafta": "have to", "imma": "i will",
    "ima": "i will", "u": "you", "ur": "your", "pls": "please", "plz": "please", "plox": "please", "thx": "thanks", "smth": "something", "sth": "something",
    "smb": "somebody", "dunno": "do not know", "c'mon": "come on", "cuz": "because", "coz": "because", "cos": "because", "'cause": "because",
    "b4": "before", "wont": "will not", "cant": "can not", "'em": "them", "em": "them", "ya": "you", "y'all": "you", "tryna": "trying to", "outta": "out of", "goin": "going",
    "oughta": "ought to", "shoulda": "should have", "w/": "with", "bout": "about", "teh": "the", "d'you": "do you", "idk": "i do not know", "rn": "now", "asap": "now",
    "alot": "a lot", "b/c": "because", "abt": "about", "ppl": "people", "dat": "that", "da": "the", "yur": "your", "wat": "what", "wut": "what", "wheres": "where is",
    "whats": "what is", "whos": "who is", "hows": "how is", "theres": "there is", "thats": "that is", "ive": "i have", "youre": "you are", "go2": "go to",
    "lookat": "look at", "talkto": "talk to", "pickup": "pick up", "putdown": "put down", "shud": "should", "shuld": "should", "cud": "could", "culd": "could",
    "wud": "would", "wuld": "would", "hav": "have", "nvm": "never mind", "jk": "just kidding", "2morrow": "tomorrow", "tmrw": "tomorrow", "2nite": "tonight",
    "2day": "today", "thier": "their", "becuz": "because", "rly": "really", "srsly": "seriously", "prolly": "probably", "def": "definitely",
}  # fmt: skip
"""How people write in haste, and the words that it stands for."""
_HASTE = re.compile(rf"(?<![\w'])(?:{'|'.join(sorted(map(re.escape, _SAID_SHORT), key=len, reverse=True))})(?![\w'/])", re.IGNORECASE)
_JOINED = tuple(
    (re.compile(rf"(?i)\b{found}\b"), put)
    for found, put in (
        (r"(do|did|is|are|was|were|does|should|would|could|must|have|has|had|need|might)n'?t", r"\1 not"), (r"(\w+)'ll", r"\1 will"), (r"(\w+)'re", r"\1 are"),
        (r"(\w+)'ve", r"\1 have"), (r"(?:^|(?<=[,.!?;] )|(?<=\bso )|(?<=\band )|(?<=\bor )|(?<=\bok )|(?<=\bfine ))ill(?= \w)", "i will"),
        (r"(?<=[a-z] )2(?= (?:the|a|an|my|your|his|her|him|them|me|go|do|be|see|get|eat|sleep|talk|take|find|you)\b)", "to"),
        (r"(?<=[a-z] )4(?= (?:the|my|your|his|her|him|them|me|you)\b)", "for"), (r"(?<=[a-z]) ?[+&] ?(?=[a-z])", " and then "), (r"(i|we|you|he|she|they)'d", r"\1 would"), (r"(it|that|there|here|what|where|who|how|he|she|when|everything)'s", r"\1 is"),
    )
)  # fmt: skip
_STRETCHED = re.compile(r"(?i)\b(?=[a-z]*([a-z])(?!\1)[a-z])[a-z]*?([a-z])\2{2,}[a-z]*\b")
_SLANG = r"(?:bruh|bro|dude|yo|ugh|omf?g|lol|lmao|haha+|tbh|ngl|um+|uh+|ew+|meh|lowkey|brb|gosh|jeez)"
_CHATTER = re.compile(rf"(?i)^(?:{_SLANG}\b[\s,.!]*)+(?=\w)|(?<=\w)(?:[\s,.!]+(?:{_SLANG}|xd))+(?=\W*$)|\b(?:lowkey|kinda|sorta)\b ")
_AS_HEARD = {"too the see": "to the sea", "too the": "to the", "too a": "to a", "the see": "the sea", "threw the": "through the", "their is": "there is",
             "take a step": "step", "take one step": "step"}  # fmt: skip
_HEARD = re.compile(rf"\b(?:{'|'.join(_AS_HEARD)})\b", re.IGNORECASE)


def normalized(text: str) -> str:
    """The line as the rules read it: written out, and spelled rightly.

    >>> normalized("i wanna paitn the hosue, don't i")
    'i want to paint the house, do not i'
    """
    return mended(_HEARD.sub(lambda found: _AS_HEARD[found[0].lower()], written_out(text.strip())))


def written_out(text: str) -> str:
    """The line without short forms: ``don't`` is ``do not``, ``gonna`` is ``going to``."""
    said = _CHATTER.sub("", _STRETCHED.sub(_unstretched, text.replace("’", "'")))
    said = _HASTE.sub(lambda found: _SAID_SHORT[found[0].lower()], said)
    for found, put in _JOINED:
        said = found.sub(put, said)
    return said


def _unstretched(found: re.Match[str]) -> str:
    """``sooo`` is ``so``, ``gooood`` is ``good``: with each run of letters once or twice, whichever is a word."""
    once, twice = (re.sub(r"(?i)([a-z])\1{2,}", put, found[0]) for put in (r"\1", r"\1\1"))
    return twice if twice.lower() in vocabulary()[0] and once.lower() not in vocabulary()[0] else once


def mended(text: str) -> str:
    """The line with its misspelled words mended; one of which most words are no English stays as it is.

    >>> mended("wlak to teh forest"), mended("sali sulla torre")
    ('walk to the forest', 'sali sulla torre')
    """
    found = [word.lower() for word in _WORD.findall(text)]
    english = sum(word in vocabulary()[0] or nearest(word) is not None or _bent(word, vocabulary()[0]) for word in found)
    return _WORD.sub(lambda match: _mended(match, text), text) if english >= 0.6 * len(found) else text


def active(text: str) -> str:
    """A line in the passive voice as the order that it is; others as they are.

    >>> active("a bridge has to be built over the river")
    'build a bridge over the river'
    """
    if (wanted := _CAUSED.match(text.rstrip(" .!?"))) and (verb := _base(wanted["done"].lower())) is not None:
        return f"{'do not ' if wanted['no'] else ''}{verb} {wanted['what']}{wanted['rest']}"
    if " be " not in text or (text.rstrip().endswith("?") is False and text.lower().startswith("i will")):
        return text
    found = _PASSIVE.match(text.rstrip(" .!?"))
    if found is None or (verb := _base(found["done"].lower())) is None:
        return text
    if not found["modal"] and not re.match(r"(?i)(?:let|may|might|i want|i order|i demand|have|i wish|i would|i ought|i need|we )", text):
        return text
    what = found["what"].strip()
    if re.search(r"(?i)\b(?:that|which|who)$", what):
        return text
    what = "me" if _SELF.match(what.lower()) else what
    rest = _AGENT.sub("", found["rest"].lower() if found["rest"].isupper() else found["rest"])
    nobody = re.match(r"(?i)(?:nothing|nobody|no one|no )\s*", what)
    denied = bool(found["no"]) or nobody is not None
    what = what[nobody.end() :] or "anything" if nobody else what
    return f"{'do not ' if denied else ''}{verb} {what}{rest}"


def _base(participle: str) -> str | None:
    """The verb of a participle, where the rules know it."""
    if participle in IRREGULAR:
        return IRREGULAR[participle] if IRREGULAR[participle] in FIRSTS else None
    return next((base for base, form in forms(participle) if form == "past" and base in FIRSTS), None)


@lru_cache(maxsize=1)
def vocabulary() -> tuple[frozenset[str], frozenset[str]]:
    """Every word that is known to be one, and those of them that the rules read something in."""
    tables = (lexicon.LANDMARKS, lexicon.OBJECTS, lexicon.TERRAINS, lexicon.WEATHERS, lexicon.COLOURS, lexicon.BEASTS, lexicon.DIRECTIONS, lexicon.HOURS,
              PHRASES)  # fmt: skip
    spoken = (
        *ROLES,
        *IRREGULAR,
        *lexicon.MATERIALS,
        *lexicon.SKY_THINGS,
        *lexicon.DETERMINERS,
        *lexicon.MANNERS,
        *lexicon.ANYBODY,
        *PREPOSITIONS,
    )
    read = {
        *(word for table in tables for phrase in table for word in phrase.split()),
        *LEADING,
        *spoken,
    }
    return frozenset((*read, *_SMALL, *_REAL)), frozenset(read)


def _mended(found: re.Match[str], line: str) -> str:
    """A word of a line, mended where it is misspelled; what is written with a capital inside a line is a name."""
    word = found[0]
    if word[:1].isupper() and (found.start() > 0 or line[: found.start()].strip()):
        return word
    return nearest(word.lower()) or word


@lru_cache(maxsize=4096)
def nearest(word: str) -> str | None:
    """The one known word that a misspelled one is meant for: letters swapped, doubled, missing, too many or, in longer words, wrong.

    None for words that are known, or that stand near none or several; the first letter is never wrong.

    >>> nearest("tkae"), nearest("hosue"), nearest("sleeep"), nearest("mouse"), nearest("house")
    ('take', 'house', 'sleep', None, None)
    """
    known, meant = vocabulary()
    if len(word) < 3 or word in known or f"{word}s" in known or word.capitalize() in NAMES or not word.isascii() or _bent(word, known):
        return None
    for ways in (_swapped, _doubled, _missing, _wrong):
        if hits := {near for near in ways(word) if near in meant and near[0] == word[0] and len(near) > 2}:
            return hits.pop() if len(hits) == 1 else None
    return None


def _bent(word: str, known: frozenset[str]) -> bool:
    """True for another form of a known word: towers, walked, building, miller's."""
    stem = word.split("'")[0]
    ends = ("s", "es", "ed", "d", "ing", "er", "ly", "y", "n", "en")
    stems = {stem, *(stem.removesuffix(end) for end in ends)}
    stems |= (
        {f"{cut}e" for cut in stems}
        | {cut[:-1] for cut in stems if len(cut) > 3 and cut[-1] == cut[-2]}
        | {f"{cut[:-1]}y" for cut in stems if cut}
    )
    return "'" in word or (any(len(cut) > 2 and cut in known for cut in stems if cut != word) and word.endswith(ends))


def _swapped(word: str) -> set[str]:
    return {word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(len(word) - 1)} if len(word) > 3 else set()


def _doubled(word: str) -> set[str]:
    """With one of two equal letters less, or one letter twice: ``restt``, ``hil``."""
    less = {word[:at] + word[at + 1 :] for at in range(1, len(word)) if word[at] == word[at - 1]}
    return less | {word[:at] + word[at] + word[at:] for at in range(1, len(word))}


def _missing(word: str) -> set[str]:
    if len(word) < 4:
        return set()
    return {word[:at] + letter + word[at:] for at in range(1, len(word) + 1) for letter in ascii_lowercase} | {
        word[:at] + word[at + 1 :] for at in range(1, len(word)) if len(word) > 4
    }


def _wrong(word: str) -> set[str]:
    if len(word) < 5:
        return set()
    return {word[:at] + letter + word[at + 1 :] for at in range(1, len(word)) for letter in ascii_lowercase}

"""Verb phrases of actions, and which arguments a verb takes."""

from __future__ import annotations

from wgtorch.blocks.simulation.action import IMPOSSIBLE_VERB
from wgtorch.blocks.simulation.rarer_phrases import RARER

_VERBS = {
    "go": "drag myself|drag myself to|turn to|turn towards|turn toward|go on an adventure|go on a journey|go on a quest|go on a trip|on to|then on to|leave for|depart for|set off for|set out for|head for|make for|make my way to|be bound for|venture|trek|advance|descend|jog|drift|navigate|go on foot|walk on|carry on|press on|push on|go further|go for it|continue on my way|go on my way|straight to|onward to|onwards to|off to|on my way to|on my way|over to|go|goto|go to|bring me to|bring us to|lead me to|lead us to|carry me to|guide me to|walk|meander|amble|travel|move|head|run|march|wander to|journey|proceed|ride|hike|stroll|step|hurry|sneak|crawl|set off|set out|set sail|"
    "sail|make my way|come|go on|continue|keep going|cross|visit|approach|reach|go down|go up|go over|row|drive|return to the road|take me|head over|explore|go for a walk|take a walk|roam",
    "enter": "enter|set foot in|set foot on|go into|go inside|walk into|step into|get into|step inside|come into|come in|walk inside|board|go in|move into|crawl into|climb into|get inside|climb aboard|go aboard",
    "leave": "take my leave|take my leave of|leave|exit|depart|depart from|get out of|get out|go out|go out of|walk out of|step out of|walk away from|go away from|go away|get away from|move away from|go outside|come out of|abandon|quit|"
    "get off|step outside|walk away|turn away from|turn my back on",
    "flee": "retreat|withdraw|back off|take flight|flee|run away|escape|get away|run off|run for it|run for my life|bolt|make a run for it|run away from|flee from|escape from",
    "return": "back|back again|return|go back|come back|turn back|turn around|walk back|head back|go home|walk home|head home|run back|retrace my steps|go back to|backtrack|ride back",
    "follow": "follow|chase|pursue|track|go after|run after|accompany|go with|travel with|walk with|tag along with|shadow",
    "stay": "stay around|not move|freeze|stay in place|settle in|camp out here|stay|remain|stand still|do nothing|stay put|keep still|linger|stop|halt|sit|sit down|stand|kneel|idle|hold on|pause|stop here|stay where i am|settle|settle down|stand guard|keep watch|guard",
    "avoid": "never mind|avoid|forget|forget about|stay away from|keep away from|keep away|keep off|stay clear of|steer clear of|keep clear of|keep out of|stay out of|shun|stop thinking about|stop going to|"
    "give up on|skip|ignore|go around|walk around|bypass|pass by|dodge|evade|beware of|refuse to go to|turn down|give a wide berth to|stay off",
    "hide": "hide|hide from|hide in|hide behind|take cover|take cover from|take shelter|take shelter from|shelter|shelter from|seek shelter|seek shelter from|find shelter|seek cover|duck|crouch|crouch behind|find cover|get under cover",
    "climb": "climb to the top|climb to the top of|go to the top of|get on top of|shin up|climb|climb up|climb onto|climb on|climb over|scale|go up onto|clamber up|mount|ascend",
    "swim": "splash|splash in|splash around|paddle|swim|bathe|dive|wade|swim in|take a swim|go swimming|go for a swim|take a bath|wash myself|dive into",
    "build": "build|construct|erect|raise a|raise an|put up|set up|found a city|found a town|found a village|pitch|assemble|rebuild|build up|set down",
    "craft": "design|stitch|manufacture|mould|mold|put together|make|craft|carve|forge|weave|sew|knit|create|fashion|produce|invent|whittle|make me|make us|sculpt|construct me",
    "cook": "prepare|stew|heat up|warm up|cook|bake|boil|roast|fry|brew|prepare a meal|prepare food|grill|make dinner|make lunch|make breakfast",
    "gather": "gather|collect|pick|pluck|harvest|chop|mine|forage|milk|shear|hunt|catch|cut",
    "repair": "tidy|tidy up|clean|clean up|sweep|mop|scrub|polish|dust|improve|decorate|repair|mend|fix|restore|patch|patch up|renovate|put right|finish|finish building|complete|fix up",
    "destroy": "crack|snap|shred|slash|split|blast|bomb|explode|sabotage|erase|obliterate|annihilate|devastate|trash|damage|reduce to rubble|tear to pieces|break into pieces|make firewood of|destroy|break|smash|demolish|tear down|tear apart|ruin|wreck|knock down|pull down|crush|shatter|blow up|break down|take down|raze|dismantle|topple|bring down|cut down|tear up|rip|rip up|"
    "break apart|get rid of|wipe out|level|flatten|pull apart|vandalise|vandalize|sink|make rubble of|push over|bash in",
    "burn": "burn|burn down|set fire to|set on fire|set alight|torch|ignite|incinerate|set ablaze|burn up|put to the torch|set light to",
    "harm": "tie|bind|injure|whip|spank|choke|smack|whack|shove|tackle|assault|bash|eliminate|defeat|capture|arrest|kidnap|tie up|imprison|trap|finish off|take out|get rid of the man|beat the living daylights out of|kill|attack|hit|murder|stab|fight|slay|hurt|strike|punch|kick|shoot|wound|beat|strangle|poison|execute|assassinate|wrestle|behead|slap|beat up|declare war on|bite|duel|hang|drown|torture|ambush",
    "colour": "paint|colour|color|dye|whitewash|tint|repaint|recolour|recolor|turn|stain|turn the",
    "dig": "dig a way through|dig|dig up|excavate|tunnel|burrow|dig out|dig for|dig through|dig into|shovel",
    "plant": "plant|sow|grow|seed|cultivate|plant some",
    "light": "light|kindle|light up|turn on|switch on",
    "extinguish": "extinguish|put out|douse|blow out|quench|snuff out|smother|stamp out|turn off|switch off|snuff",
    "talk": "tell on|promise|tell me a story|tell me a tale|tell me a joke|tell us a story|inform|notify|advise|interrupt|announce|admit|remind|report|debate|lecture|confront|mention|sit down with|catch up with|strike up a conversation with|converse|say|say to|say that|talk|talk to|talk with|speak|speak to|speak with|chat|chat with|converse with|tell|say to|say hello to|gossip with|have a word with|call|call out to|shout to|whisper to|discuss|address|interview|meet|"
    "meet with|have a chat with|introduce myself to|introduce myself|negotiate with|argue with|consult|chatter with|call for|persuade|convince|warn|tell a secret to|confess to|joke with",
    "ask": "say me|know|know who|know what|know where|know why|know how|know if|know whether|know about|ask about|ask|inquire|inquire about|enquire|enquire about|question|ask for news|wonder|wonder about|find out|find out about|learn about|tell me|tell me about|explain|i wonder|do you know|ask around|"
    "ask the way|ask the way to|ask for directions|ask where|ask who|ask what|ask if|ask how|ask why|ask when|show me|check my inventory|check inventory|inventory|list|help me|describe|count|show me the way|show me the way to|tell me the way to|lead the way to",
    "greet": "shout hello|shout hi|bid|reassure|respect|honour|applaud|shake the hand of|give my regards to|say good day to|greet|tip my hat to|raise my hat to|thank|hug|kiss|comfort|console|cheer up|wave to|wave at|bow to|smile at|pat|pet|stroke|congratulate|welcome|embrace|praise|compliment|encourage|bless|cheer|shake hands with|flirt with|calm|"
    "calm down|say thank you to|say goodbye to|say bye to|say hi to|say thanks to|say good night to|wave goodbye to|bid farewell to|say farewell to|feed|nod to|salute|admire|care for|tickle|forgive|pay my respects to|toast",
    "befriend": "be friends|be friends with|be my friend|be a friend to|impress|charm|befriend|make friends|make friends with|become friends with|get to know|tame|win over|be nice to|be kind to|adopt|bond with|gain the trust of|win the trust of",
    "court": "marry|propose to|woo|court|ask to marry|get married to|wed|fall in love with|seduce|get engaged to|propose marriage to|get married",
    "help": "babysit|shield|give a hand to|lend my help to|help|assist|aid|lend a hand to|support|work with|work for|rescue|save|heal|cure|protect|defend|nurse|serve|help out|look after|take care of|team up with|join|tend|tend to|free|release",
    "quarrel": "criticise|criticize|harass|upset|embarrass|pick a fight with|get angry at|be rude to|be mean to|insult|wake|awaken|wake up the|disturb|bother|pester|threaten|yell at|shout at|mock|provoke|scold|accuse|curse|tease|quarrel with|offend|laugh at|scare|frighten|annoy|argue|challenge|blame|lie to|trick|deceive|betray|cheat|spit at|complain to|"
    "call names|bully|boo|swear at|growl at|intimidate|blackmail|humiliate|make fun of|slander",
    "reconcile": "make my peace|make my peace with|apologise|apologize|apologise to|apologize to|make peace|make peace with|reconcile with|say sorry|say sorry to|ask forgiveness|ask forgiveness of|make up with|beg forgiveness|beg forgiveness of|beg pardon",
    "invite": "come with me|come along|come along with me|join me|accompany me|follow me|walk with me|go with me|invite|bring along|take along|lead|guide|recruit|persuade to come|ask to come|ask to join|hire|summon|escort",
    "teach": "teach|show how|instruct|train|educate|teach how",
    "give": "transfer|share|reward|pass on|hand out|give|hand|offer|present|pass|bring|donate|lend|deliver|return the|gift|hand over|give back|give away|send|show|pay|hand back|bestow",
    "take": "draw my|grasp|gain|recover the|receive|accept|claim|haul|take|raise|hoist|grab|pick up|get|fetch|pocket|lift|acquire|seize|collect the|keep|obtain|snatch|pull out|retrieve|scoop up|take hold of|reach for|carry|hold|wear|put on|equip",
    "drop": "set down my|set down the|drop|put down|lay down|leave behind|discard|throw away|let go of|release the|set aside|dispose of|take off|place|put|unload|lose|bury|hide the|abandon the",
    "steal": "steal|rob|pickpocket|swipe|snatch from|loot|plunder|nick|mug|steal from|burgle",
    "trade": "gamble with|bargain with|trade|swap|exchange|buy|sell|barter|purchase|trade with|trade for|swap for|haggle|haggle for|bargain for|rent|borrow|bid for|barter for",
    "beg": "have my|have that|have this|have some|have the|have a|have an|beg|beg for|ask for|request|plead for|demand",
    "eat": "have a picnic|picnic|lick|dine|feast|have something to eat|have something to drink|snack on|eat|drink|devour|consume|taste|swallow|bite into|have a bite of|munch|nibble|sip|eat up|have breakfast|have lunch|have dinner|have supper|have a drink|have a meal|gobble|feast on|chew|try the",
    "open": "open|unlock|open up|unwrap|force open|pry open|break open|untie|uncover|knock on|knock at|knock|ring the bell at|push open",
    "lock": "lock|close|shut|bolt the|bar|lock up|seal|barricade|shut down",
    "read": "read|study|leaf through|decipher|consult the|browse",
    "throw": "throw|toss|fling|hurl|cast|chuck|lob",
    "use": "drag|drag|tug|squeeze|rub|scratch|poke|tap|flip|click|slide|drill|shift|use|operate|activate|apply|employ|press|push|pull|play with|ring|try|work|repair with|spin|shake|touch|test|aim|load",
    "look": "face|pay attention to|pay attention|witness|monitor|scan|review|recognise|recognize|identify|look|peer|peer into|peer around|peek|gaze|stare|glance|glance around|look at|look around|examine|inspect|watch|observe|see|gaze at|study the|check|check out|look up at|stare at|view|survey|admire the|look about|look over|have a look|have a look at|"
    "take a look|take a look at|look into|peek|peek at|peer at|look through|listen|listen to|smell|sniff|feel the|contemplate|spy on|glance at|notice|look out over|stargaze|measure|watch the",
    "search": "look for|detect|trace|look everywhere for|keep an eye out for|search|search for|look for|seek|find|hunt for|investigate|explore for|scavenge|go looking for|try to find|locate|rummage|search the|scout|scout for|discover|track down|look under|look behind|go in search of|comb|go treasure hunting|quest for|seek out",
    "rest": "lie down|call it a day|breathe the|make myself comfortable|make myself at home|make myself comfortable here|rest|take rest|relax|take a break|take a rest|recover|catch my breath|lean back|sit and rest|unwind|take it easy|put my feet up|have a rest|meditate|sunbathe|take five|breathe|have a break|repose|chill|recuperate|recline|laze|lounge|restore my strength|regain my strength",
    "sleep": "sleep|nap|take a nap|go to sleep|go to bed|lie down to sleep|fall asleep|spend the night|doze|camp|make camp|camp for the night|camp out|get some sleep|sleep in|snooze|turn in|stay overnight|stay the night|have a nap|slumber|hibernate",
    "wait": "wait|wait for|wait until|wait here|pass the time|kill time|bide my time|hang around|let time pass|stay until|wait out|watch for|await|sit out|sit until|hang on|loiter|tarry",
    "perform": "blow the|sing|play|dance|perform|whistle|hum|juggle|recite|tell a story|tell a tale|tell a joke|tell stories|play music|play the flute|act|entertain|put on a show|sing about|chant|strum|throw a party|hold a feast|celebrate|drum|yodel|serenade|"
    "make music|have a party|hold a speech|give a speech|preach|do a trick",
    "pray": "pray|think|think about|remember|dream|dream of|hope|hope for|reflect|ponder|consider|plan|worship|daydream|pray to|pray for|mourn|reminisce|make a plan|decide|grieve|give thanks|regret|imagine|miss|concentrate|remember the",
    "feel": "rage|fart|vomit|puke|spit|pee|poop|dip|twist|shake my head|shake my fist|close my eyes|open my eyes|hold my breath|take a deep breath|take a bow|do a|do some|roar|growl|bark|meow|purr|grunt|chuckle|grin|twirl|hiccup|burp|pout|sulk|gasp|flinch|wail|sob|whine|swagger|pace|cry|weep|jump|smile|wave|shout|scream|yell|stretch|yawn|clap|sigh|sneeze|whisper|nod|bow|cough|shiver|blush|hop|skip about|roll|spin around|exercise|shrug|giggle|tremble|howl|groan|be happy|be sad|be brave|"
    "cheer loudly|kneel down|stamp|stomp|train my|do a handstand|do a somersault|leap|get up|stand up|wake up|be quiet|be silent|calm myself|get dressed|wash my face|wash|comb my hair|shave|undress|limp|stumble|fall down|wink|frown|say nothing|keep quiet|shut up",
    "write": "print|copy|document|write|compose|draw|sketch|jot down|scribble|write down|draw a picture|keep a diary|sign|paint a picture|paint a portrait|record",
    "wish": "wish|give anything for|give anything to|wish for|make it|let it|let there be|stop the|end the|change the weather|bring back the|make the|want|want the|command the|order the|summon the|summon a|conjure|call down|make the sun shine|make time stop|stop time|"
    "bring rain|bring snow|become|be|turn into|grant|have it|cause|start a|call up|control|cast a spell on|cast a spell|cast|enchant|hypnotise|rule|conquer|curse the",
    "refrain": "refrain from|stop doing|hold back|hold back from|hesitate|resist|refuse|decline|give up|cancel|calm the",
    "remark": "goodbye|bye|farewell|see you|greetings|howdy|good afternoon|make a vow|make a promise|make an oath|swear an oath|take an oath|come from|take back what|hello|hi|hey|good morning|good evening|good night|good day|yes|no|okay|ok|thanks|thank you|sorry|please|well|hmm|wow|like|love|hate|fear|need|own|believe|enjoy|prefer",
    "wander": "wander|wander about|wander around|wander off|ramble",
    "unknown": "",
}  # fmt: skip
IMPOSSIBLE = frozenset(
    (
        "fly", "fly to", "teleport", "teleport to", "levitate", "disappear", "vanish", "turn invisible", "become invisible", "walk on water", "walk through walls",
        "time travel", "travel through time", "travel in time", "jump over", "breathe fire", "breathe underwater", "raise the dead", "read minds", "stop breathing",
        "jump to", "leap to", "fly over", "fly away", "soar", "float", "float to", "shapeshift", "resurrect", "live forever", "jump over the", "turn back time", "phone", "text", "google",
        "swallow the sun", "swallow the moon", "drink the sea", "go to the bottom", "dive to the bottom", "bring the dead", "breathe under", "restart", "start again", "start over", "start anew", "begin again", "begin anew", "begin over",
        "undo", "undo that", "reset", "rewind", "turn back the clock", "travel back in time", "go back in time", "walk through the wall", "make gold",
        "teleport me", "lift the mountain", "move the mountain", "clone", "download", "upload", "hack",
    )
)  # fmt: skip
PHRASES: dict[str, str] = {phrase: verb for verb, phrases in _VERBS.items() for phrase in phrases.split("|") if phrase}
_MOTIONS = "walk run step slip creep tiptoe sneak crawl stagger stumble limp march rush dash hurry stroll wander ride move head jump leap storm slink steal stride swim sail row drift get come go".split()
_ENDS = {
    "out of": "leave",
    "away from": "leave",
    "into": "enter",
    "inside": "enter",
    "back": "return",
    "back to": "return",
    "out": "leave",
    "off": "leave",
    "aboard": "enter",
}
_ENDS |= dict.fromkeys(("out to", "off to", "over to", "up to", "down to", "on to", "out into", "out onto"), "go")
PHRASES = {f"{motion} {end}": verb for motion in _MOTIONS for end, verb in _ENDS.items()} | PHRASES
PHRASES = {phrase: verb for verb, phrases in RARER.items() for phrase in phrases.split("|")} | PHRASES
PHRASES |= dict.fromkeys(IMPOSSIBLE, IMPOSSIBLE_VERB)
IMPLIED = {
    "cut wood": ("gather", "wood"), "chop wood": ("gather", "wood"), "gather firewood": ("gather", "wood"), "fish": ("gather", "fish"), "go fishing": ("gather", "fish"),
    "hunt for food": ("gather", "deer"), "go hunting": ("gather", "deer"), "bake bread": ("cook", "bread"), "make soup": ("cook", "soup"), "make some soup": ("cook", "soup"),
    "bake a cake": ("cook", "cake"), "bake me a cake": ("cook", "cake"), "start a fire": ("light", "fire"), "make a fire": ("light", "fire"), "build a fire": ("light", "fire"), "make fire": ("light", "fire"),
    "make a campfire": ("light", "fire"), "build a campfire": ("light", "fire"), "strike a light": ("light", "fire"), "play the flute": ("perform", "flute"), "play a song": ("perform", "song"),
    "sing": ("perform", "song"), "sing along": ("perform", "song"), "make the bed": ("refrain", "bed"), "set sail": ("go", "the sea"), "make a wish": ("wish", "luck"),
}  # fmt: skip
"""Phrases that hold their target: what they mean, and of what."""
PHRASES |= {phrase: verb for phrase, (verb, _) in IMPLIED.items()}
PHRASES |= dict.fromkeys(
    (
        "do it again",
        "do that again",
        "again",
        "once more",
        "repeat",
        "repeat that",
        "same again",
        "do the same",
        "do the same again",
        "one more time",
    ),
    "again",
)
LONGEST_PHRASE = max(len(phrase.split()) for phrase in PHRASES)
VERBS = tuple(sorted({*_VERBS, IMPOSSIBLE_VERB, "remark", "wander"}))
FRAMES = {
    **dict.fromkeys(("go", "return", "flee", "wander", "enter"), "move"),
    "give": "hand",
    **dict.fromkeys(("take", "steal", "trade", "beg"), "get"),
    **dict.fromkeys(("talk", "greet", "befriend", "court", "help", "quarrel", "reconcile", "invite", "follow", "teach"), "person"),
    **dict.fromkeys(("ask", "pray", "perform", "wish", "avoid", "hide", "search", "look", "climb", "leave", "wait", "sleep", "swim", "harm", "open"), "topic"),
    "colour": "colour",
}  # fmt: skip
"""How the words after a verb are read; ``thing`` where nothing is said."""
PREPOSITIONS = frozenset(
    (
        "beneath beside amid among amongst above below beyond within outside upon despite throughout atop alongside to towards toward into in at from with for over of on by until till about under near onto off across behind inside through "
        "before after around along past against between up down without during"
    ).split()
)

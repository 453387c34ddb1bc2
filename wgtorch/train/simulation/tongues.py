"""Words for actions in other languages, and English turns of phrase that no table of verbs holds: what the reader that is a language
model learns from. Plain data: in each line the meaning, then how it is said, by language, alternatives between slashes."""

from __future__ import annotations

LANGUAGES = ("German", "French", "Spanish", "Italian", "Russian")

VERBS = """
go | geh/gehen/gehe/lauf/wir gehen/wandere/begib dich | va/aller/marche/allons/marchons/rends-toi/je vais | ve/ir/camina/vamos/vete/dirígete/marcha/voy | vai/andare/cammina/andiamo/vado/recati | иди/идти/пойди/пойти/ступай/идём/пошли/отправляйся/я иду
build | baue/bauen/bau/errichte/errichten | construis/construire/bâtis | construye/construir/edifica | costruisci/costruire/edifica/innalza | построй/построить/строй/возведи
take | nimm/nehmen/hol/greif dir/heb auf | prends/prendre/ramasse/attrape/saisis | toma/coger/recoge/agarra/coge | prendi/prendere/raccogli/afferra | возьми/взять/бери/подними
give | gib/geben/schenke/überreiche/reich | donne/donner/offre/tends | da/dar/regala/entrega | dai/dare/regala | дай/дать/отдай/подари/вручи
talk | sprich mit/rede mit/sprechen mit/unterhalte dich mit | parle avec/parler à/discute avec | habla con/hablar con/charla con | parla con/parlare con/chiacchiera con | поговори с/говори с/побеседуй с/разговаривай с
destroy | zerstöre/zerstören/zerschlage | détruis/détruire/casse/démolis | destruye/destruir/rompe/derriba | distruggi/distruggere/rompi/demolisci | разрушь/сломай/уничтожь/разрушить
burn | verbrenne/verbrennen/zünde/steck in Brand | brûle/brûler/incendie | quema/quemar/incendia | brucia/bruciare/incendia | сожги/сжечь/подожги/жги/спали
repair | repariere/reparieren/flicke | répare/réparer/répare donc | repara/reparar/arregla | ripara/riparare/aggiusta/aggiustare | почини/починить/отремонтируй
eat | iss/essen/verspeise/verzehre | mange/manger | come/comer | mangia/mangiare | съешь/поешь/съесть
sleep | schlaf/schlafe/schlafen/leg dich schlafen | dors/dormir | duerme/dormir | dormi/dormire | спи/спать/поспи/ложись спать
wait | warte/warten/wart | attends/attendre | espera/esperar/aguarda | aspetta/aspettare | жди/подожди/ждать
perform | singe/singen/sing ein lied | chante/chanter | canta/cantar/baila | canta/cantare/balla | пой/спой/петь/танцуй
climb | klettere auf/besteige/klettern auf | grimpe sur/escalade/monte sur | sube a/trepa a/escala | sali su/scala/arrampicati su/salire su | залезь на/поднимись на/взберись на
search | suche/suchen/such nach/finde/such | cherche/chercher/trouve | busca/buscar/encuentra | cerca/cercare/trova/trovare | ищи/найди/искать/поищи
look | schau/schau dir an/betrachte/sieh dir an/sieh/schau auf | regarde/observe/examine | mira/mirar/observa/examina | guarda/guardare/osserva | посмотри на/осмотри/смотри на/взгляни на
plant | pflanze/pflanzen | plante/planter | planta/plantar/siembra | pianta/piantare/semina | посади/посадить
hide | versteck dich/verstecke dich | cache-toi/se cacher | escóndete/esconderse | nasconditi/nascondersi | спрячься/прячься/спрятаться
flee | flieh/lauf weg/renn weg | fuis/enfuis-toi/sauve-toi | huye/escapa/escápate | scappa/fuggi | беги/убегай/убеги/сбеги
open | öffne/öffnen/mach auf | ouvre/ouvrir | abre/abrir | apri/aprire | открой/открыть/отопри
greet | grüße/grüßen/begrüße | salue/saluer | saluda a/saludar a | saluta/salutare | поприветствуй/поздоровайся с
help | hilf/helfen/hilf dem | aide/aider | ayuda a/ayudar a | aiuta/aiutare | помоги/помочь
follow | folge/folgen/geh hinter | suis/suivre | sigue a/seguir a | segui/seguire | следуй за/иди за
dig | grabe/graben/schaufle | creuse/creuser | cava/excava/cavar | scava/scavare | копай/выкопай/рой
swim | schwimm/schwimme/schwimmen | nage/nager/baigne-toi | nada/nadar/báñate | nuota/nuotare | плыви/плавай/искупайся
rest | ruh dich aus/raste/ausruhen | repose-toi/se reposer/repose-toi un peu | descansa/descansar | riposa/riposati | отдохни/отдыхай
light | zünde an/entzünde | allume/allumer | enciende/encender | accendi/accendere | зажги/разожги
stay | bleib/bleib hier/bleiben | reste/reste ici/rester | quédate/quédate aquí | resta/resta qui/rimani | останься/стой/стой здесь
return | geh zurück/kehr um/komm zurück | retourne/reviens/rentre | vuelve/regresa/volver | torna/torna indietro/ritorna | вернись/возвращайся/иди назад
drop | lass fallen/leg hin/wirf weg | pose/lâche/jette | suelta/deja/tira | lascia/posa/butta | брось/положи/выбрось
steal | stiehl/stehlen/klau | vole/voler/dérobe | roba/robar/hurta | ruba/rubare | укради/украсть/стащи
gather | sammle/sammeln/pflücke | cueille/ramasse/récolte | recoge/junta/recolecta | raccogli/cogli | собери/собирай/нарви
read | lies/lesen | lis/lire | lee/leer | leggi/leggere | прочитай/читай
ask | frag nach/frage nach/fragen | demande/demander | pregunta por/preguntar | chiedi/domanda/chiedere | спроси о/спроси про/спросить
colour | streiche/male an/färbe/streich/bemale | peins/peindre/colore | pinta/pintar/colorea | dipingi/colora/vernicia | покрась/раскрась/перекрась
enter | betritt/geh hinein in/tritt ein in | entre dans/entrer dans | entra en/entrar en | entra in/entrare in | войди в/зайди в
leave | verlass/verlasse/geh weg von | quitte/sors de/pars de | sal de/abandona/deja | lascia/esci da/abbandona | покинь/уйди из/выйди из
harm | töte/greif an/schlag | tue/attaque/frappe | mata a/ataca a/golpea a | uccidi/attacca/colpisci | убей/напади на/ударь
pray | bete/denk nach/beten | prie/réfléchis/médite | reza/piensa/medita | prega/rifletti/medita | молись/подумай/помолись
cook | koche/kochen/backe | cuisine/prépare/cuis | cocina/prepara/hornea | cucina/prepara/cuoci | свари/приготовь/испеки
avoid | meide/vermeide/bleib weg von | évite/éviter | evita/evitar | evita/evitare | избегай/держись подальше от/обойди
"""
NOUNS = """
sea | das Meer/die See | la mer | el mar | il mare | море/к морю/морю
river | den Fluss/der Fluss | la rivière/le fleuve | el río | il fiume | реку/к реке/река
forest | den Wald/der Wald | la forêt/le bois | el bosque | la foresta/il bosco | лес/в лес/лесу
mountains | die Berge/den Berg | la montagne/les montagnes | la montaña/las montañas | la montagna/le montagne | горы/в горы/гору
meadow | die Wiese | la prairie/le pré | el prado | il prato | луг/на луг
desert | die Wüste | le désert | el desierto | il deserto | пустыню/в пустыню
hills | die Hügel | les collines | las colinas | le colline | холмы/к холмам
house | das Haus/ein Haus | la maison/une maison | la casa/una casa | la casa/una casa | дом
castle | das Schloss/die Burg | le château | el castillo | il castello | замок
tower | den Turm/einen Turm | la tour/une tour | la torre/una torre | la torre/una torre | башню/башня
ship | das Schiff/ein Schiff | le bateau/un navire | el barco/un barco | la nave/una nave | корабль
bridge | die Brücke/eine Brücke | le pont/un pont | el puente/un puente | il ponte/un ponte | мост
windmill | die Mühle/die Windmühle | le moulin | el molino | il mulino | мельницу/мельница
inn | das Gasthaus/die Schenke | l'auberge/la taverne | la posada/la taberna | la locanda/la taverna | трактир/таверну
well | den Brunnen | le puits | el pozo | il pozzo | колодец
cave | die Höhle | la grotte/la caverne | la cueva | la grotta/la caverna | пещеру/пещера
lamp | die Lampe/die Laterne | la lampe/la lanterne | la lámpara | la lampada/la lanterna | лампу/фонарь
ring | den Ring | l'anneau/la bague | el anillo | l'anello | кольцо
apple | den Apfel | la pomme | la manzana | la mela | яблоко
bread | das Brot | le pain | el pan | il pane | хлеб
key | den Schlüssel | la clé/la clef | la llave | la chiave | ключ
book | das Buch | le livre | el libro | il libro | книгу/книга
sword | das Schwert | l'épée | la espada | la spada | меч
rope | das Seil | la corde | la cuerda | la corda | верёвку/веревку
chest | die Truhe/die Kiste | le coffre | el cofre | il baule/lo scrigno | сундук
letter | den Brief | la lettre | la carta | la lettera | письмо
fire | das Feuer/ein Feuer | le feu/un feu | el fuego/un fuego | il fuoco/un fuoco | огонь/костёр/костер
boat | das Boot/ein Boot | la barque/un canot | el bote/una barca | la barca/una barca | лодку/лодка
tree | den Baum/einen Baum | l'arbre/un arbre | el árbol/un árbol | l'albero/un albero | дерево
flower | die Blume/eine Blume | la fleur/une fleur | la flor/una flor | il fiore/un fiore | цветок
door | die Tür/das Tor | la porte | la puerta | la porta | дверь
wood | das Holz/Holz | du bois | la madera/leña | la legna/il legno | дрова/дерева
treasure | den Schatz/einen Schatz | le trésor/un trésor | el tesoro/un tesoro | il tesoro/un tesoro | сокровище/клад
fish | den Fisch/einen Fisch | le poisson | el pez/el pescado | il pesce | рыбу/рыба
wolf | den Wolf | le loup | el lobo | il lupo | волка/волком
dog | den Hund | le chien | el perro | il cane | собаку/собакой
miller | den Müller/dem Müller | le meunier/au meunier | el molinero/al molinero | il mugnaio/al mugnaio | мельника/мельником/мельнику
smith | den Schmied/dem Schmied | le forgeron/au forgeron | el herrero/al herrero | il fabbro/al fabbro | кузнеца/кузнецом/кузнецу
fisher | den Fischer/dem Fischer | le pêcheur/au pêcheur | el pescador/al pescador | il pescatore/al pescatore | рыбака/рыбаком/рыбаку
baker | den Bäcker/dem Bäcker | le boulanger/au boulanger | el panadero/al panadero | il fornaio/al fornaio | пекаря/пекарем/пекарю
north | nach Norden/Norden | au nord/vers le nord | al norte/hacia el norte | a nord/verso nord | на север
south | nach Süden/Süden | au sud/vers le sud | al sur/hacia el sur | a sud/verso sud | на юг
east | nach Osten/Osten | à l'est/vers l'est | al este/hacia el este | a est/verso est | на восток
west | nach Westen/Westen | à l'ouest/vers l'ouest | al oeste/hacia el oeste | a ovest/verso ovest | на запад
red | rot/rote/rotes | rouge | rojo/roja | rosso/rossa | красный/красную/красное
blue | blau/blaue/blaues | bleu/bleue | azul | blu/azzurro | синий/синюю/синее
white | weiß/weiße/weißes | blanc/blanche | blanco/blanca | bianco/bianca | белый/белую/белое
black | schwarz/schwarze/schwarzes | noir/noire | negro/negra | nero/nera | чёрный/чёрную/черный
green | grün/grüne/grünes | vert/verte | verde | verde | зелёный/зеленый/зелёную
"""
NEVER = """
go | vayas | build | construyas | take | tomes | give | des | talk | hables con | destroy | destruyas | burn | quemes | repair | repares | eat | comas
sleep | duermas | wait | esperes | perform | cantes | climb | subas a | search | busques | look | mires | open | abras | follow | sigas a | drop | sueltes
steal | robes | enter | entres en | harm | mates a | read | leas | light | enciendas | dig | caves | stay | te quedes | leave | abandones | help | ayudes a
"""
"""What Spanish says for ``not to``, by verb."""
JOINS = """
to | zu/an/in/nach | à/vers/dans | a/hasta/hacia | a/al/verso | к/в/на/до
and | und/und dann | et/et puis/puis | y/y luego | e/e poi | и/а потом/и потом
not | nicht | ne pas | no | non | не
please | bitte | s'il te plaît/s'il vous plaît | por favor | per favore | пожалуйста
until morning | bis zum Morgen/bis morgen früh | jusqu'au matin | hasta la mañana | fino al mattino | до утра
"""
QUESTIONS = """
place | wo bin ich/was ist das hier für ein Ort | où suis-je/quel est cet endroit | dónde estoy/qué lugar es este | dove sono/che posto è questo | где я/что это за место
who is here | wer ist hier | qui est là/qui est ici | quién está aquí | chi c'è qui | кто здесь
weather | wie ist das Wetter | quel temps fait-il | qué tiempo hace | che tempo fa | какая погода
"""
TURNS = """
go north | north it is;i point my boots northward;let the north star lead me
go east | eastward ho;i follow the rising sun
go south | southward ho;let us try our luck in the south
go west | westward ho;i follow the setting sun
go sea | the sea is calling me;i long for salt water, so off i go;my feet carry me to the sea
go forest | into the trees with me;the woods are calling
return | home is where i am headed;about face;i retrace every step;back the way i came
stay | i am not going anywhere;i plant my feet right here;not moving an inch
flee | i take to my heels;i am out of here;i make myself scarce;legs, do your work
sleep | forty winks for me;i hit the hay;time to close my eyes;i call it a night;i get some shut-eye
rest | i put my feet up for a bit;i catch my breath;my legs need a break
wait | i let the hours go by;i twiddle my thumbs;i bide my time
eat | i fill my belly;i have a bite;my stomach growls, so i dig in
eat apple | i sink my teeth into the apple;the apple disappears into my mouth
swim | i fancy a dip;into the water i go;splash, in i jump
perform song | i lift my voice;i burst into song;let my voice ring out;i give them a tune
talk miller | i have words with the miller;the miller and i put our heads together;i pass the time of day with the miller
talk smith | i sound out the smith;i strike up a conversation with the smith;i bend the smith's ear
greet Anna | i tip my hat to Anna;a friendly nod for Anna;i wish Anna a good day
befriend Bruno | i get on Bruno's good side;Bruno and i ought to be pals
quarrel Anna | i give Anna a piece of my mind;i pick a bone with Anna
reconcile Anna | i bury the hatchet with Anna;i let bygones be bygones with Anna
take lamp | the lamp is mine now;i help myself to the lamp;i make off with the lamp;into my bag goes the lamp
take ring | i slip the ring on my finger;the ring goes into my pocket
drop lamp | i rid myself of the lamp;i have no more use for the lamp, so down it goes
give ring Anna | Anna shall have the ring;i part with the ring for Anna's sake;the ring is for Anna
steal key smith | i relieve the smith of the key;my fingers find the smith's key when nobody looks
trade book miller | i strike a bargain with the miller for the book;what would the miller want for the book
build house | a house is what this place needs, so i put one there;i get to work on a house;up goes a house
build bridge | this place wants a bridge and i make one;i span the water with a bridge
destroy tower | the tower has to come down;i reduce the tower to rubble;down with the tower
burn house | i send the house up in flames;let the house go up in smoke
repair windmill | i get the windmill going again;i give the windmill a new lease of life
colour house red | i give the house a coat of red;the house would look better in red, so i see to it
plant tree | i put a tree in the ground;i give this place a tree
gather berries | i fill my hat with berries;i go berrying
gather wood | i stock up on firewood;i lay in some firewood
light fire | i get a blaze going;i coax a flame from the kindling
dig hole | i put my spade to work;i make a hole in the ground
search treasure | i am after treasure;there must be treasure here somewhere
look | i cast an eye about;let me get my bearings;i take in the view
climb tower | up the tower i go;i make my way to the top of the tower
hide | i make myself invisible behind something;i lie low;i keep out of sight
avoid storm | i want nothing to do with the storm;i give the storm a miss
pray | i bow my head in silence;i turn things over in my mind
ask place | tell me where on earth we are;i wonder what this spot is called
ask war | any word of the war;what do people say about the war
harm wolf | i put an end to the wolf;i take a swing at the wolf
court Anna | i pop the question to Anna;will Anna have me as a spouse
help smith | i lend the smith my two hands;the smith could use a hand and gets mine
follow Anna | i stick to Anna's heels;wherever Anna goes, i go
write letter | i put pen to paper for a letter;a letter is what i set down
cook soup | i throw together a soup;soup is what i put on the fire
open chest | i see what the chest holds;i lift the lid of the chest
enter castle | through the gates of the castle with me;i let myself into the castle
leave castle | i put the castle behind me;enough of this castle, i am off
wish rain | would that it rained;if only rain would fall
go north | i turn my face to the north;i let my legs carry me northward;the north calls
go sea | i want sand between my toes;off to where the waves break;i seek the sea air;i follow the gulls to the water
go river | i trail down to the river;i make for the river;the river is where i want to be
go mountains | i set my sights on the mountains;i make my way up into the mountains;the heights call me
go forest | i vanish among the trees;i plunge into the forest;i make for the forest
go desert | i brave the desert;i trade this for the desert;my path leads into the desert
go meadow | i make for the meadow;i drift over to the meadow
go hills | i ramble up the hills;i make for the hills
go castle | i direct my steps to the castle;i present myself at the castle;i wend my way to the castle
go inn | i find my way to the inn;the inn is where i am bound;i pop over to the inn
return | i make my way home;i slip back the way i came;i wend my way homeward
stay | i do not stir;i keep my seat;i am rooted to the spot;let nothing move me
flee | i make a dash for it;i get my skin out of here;i slip away as fast as i can;i leg it
sleep | i close my eyes till morning;i go out like a light;i drift off;i curl up for the night
rest | i get my breath back;i let my bones be;i take things slowly for a while
wait | i sit it through;i let the time run;i count the hours
eat bread | i get my teeth into the bread;i put away the bread;i help myself to a bite of bread
eat fish | i make short work of the fish;i finish off the fish
swim | i get in the water;i do a few strokes;i paddle about
perform song | i croon;i let out a melody;i strike up a song;i put on a little show
talk fisher | i exchange a few words with the fisher;i get talking to the fisher;i get into conversation with the fisher
talk Anna | i have it out with Anna;i let Anna know what i think;i unburden myself to Anna
greet Bruno | i say a warm welcome to Bruno;i give Bruno a hug;i give Bruno my regards
befriend Anna | i warm up to Anna;i win Anna for myself
quarrel Bruno | i give Bruno an earful;i fall out with Bruno;i tell Bruno off;i rub Bruno up the wrong way
reconcile Bruno | i patch things up with Bruno;i clear the air with Bruno;i make amends to Bruno
take lamp | i lay hands on the lamp;i make the lamp my own;i gather up the lamp;i stow the lamp in my bag
take key | i slip the key into my pocket;the key comes with me;i bag the key
drop ring | i let the ring fall;i leave the ring lying;i part company with the ring
give book miller | the miller gets the book from me;i press the book into the miller's hands;i let the miller keep the book;i see to it that the miller has the book
give apple Anna | i slip Anna the apple;i treat Anna to the apple;i make Anna a present of the apple
steal ring fisher | i filch the fisher's ring;i make the fisher's ring disappear into my sleeve;i lift the ring off the fisher
trade lamp smith | i do a deal with the smith over the lamp;the smith and i strike a bargain for the lamp
build tower | i set stone on stone until a tower stands;i knock up a tower;let me see a tower here;a tower would suit this spot, so i start on one
build ship | i lay the keel of a ship;i put together a ship;i get a ship on the water
build inn | i open an inn with my own hands;an inn shall rise here
destroy bridge | i leave nothing of the bridge;i take a hammer to the bridge;i lay the bridge low;i make an end of the bridge
destroy house | i flatten the house to the last stone;i reduce the house to nothing
burn castle | i lay a torch to the castle;i give the castle to the flames;i turn the castle to cinders
repair bridge | i put the bridge to rights;i see to the damage of the bridge;i do up the bridge
colour tower white | i make the tower white all over;i cover the tower with white;i brush white onto the tower;white is what the tower needs
colour door green | i slap some green on the door;i do the door in green
plant flower | i set a flower in the soil;i tuck a flower into the earth
gather mushrooms | i fill my basket with mushrooms;i go after mushrooms
gather fish | i cast a line for fish;i see whether the fish bite
light fire | i strike a spark;i set kindling aglow;i coax up a fire
dig hole | i shift some earth;i break the ground;i turn the soil
search ring | i turn everything over for the ring;i hunt high and low for the ring;i poke about for the ring
search treasure | i sniff around for treasure;i have a nose for treasure;let us see whether there is treasure
look | i let my eyes wander;i size up the place;i run my eyes over everything
look castle | i feast my eyes on the castle;i take a good hard look at the castle;i let my gaze rest on the castle
climb castle | i haul myself up the castle;i get on top of the castle
hide | i keep my head down;i disappear into the shadows;i make sure nobody sees me
avoid wolf | i keep my distance from the wolf;i keep the wolf at arm's length
pray | i send up a few words to heaven;i lose myself in thought
ask miller | i wonder how the miller fares;i would love to hear of the miller
ask ring | any idea where the ring went;i am curious about the ring
harm smith | i lay into the smith;i raise my fist at the smith;i go for the smith
court Anna | i ask whether Anna would share my life;i go down on one knee before Anna;i lose my heart to Anna
help miller | i give the miller a hand;i take some work off the miller;i roll up my sleeves for the miller
follow smith | i dog the smith's steps;i trail after the smith;i keep right behind the smith
read book | i lose myself in the book;i turn the pages of the book;i get stuck into the book
write letter | i pen a letter;i get a letter down on paper
cook bread | i knead a bread;i get bread out of the oven
open door | i put my shoulder to the door;i let the door swing wide
enter house | i cross the threshold of the house;i slip through the door of the house;i find my way inside the house
leave house | i quit the house for good;i shut the house behind me
wish snow | oh for some snow;snow would be lovely
invite Bruno | i ask Bruno to keep me company;i get Bruno to tag along
teach Bruno | i let Bruno in on what i know;i take Bruno under my wing
remark | life is strange;i miss my brother;it smells good here;that was close;my hands are cold;well i never
remark | what a lovely day it has been;my feet hurt;i am so bored;this is fun;i feel lucky today
unknown | i brillig the slithy toves;seventeen divided by moustache;colourless green ideas;lorem ipsum dolor;asdf qwerty;the the the;beep boop;null undefined;
"""


def table(text: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    """By meaning, the alternatives in each language."""
    rows = (line.split(" | ") for line in text.strip().splitlines())
    return {meaning: tuple(tuple(said.split("/")) for said in languages) for meaning, *languages in rows}


def spanish_denials() -> dict[str, str]:
    """By verb, the form that Spanish denies with."""
    cells = NEVER.replace("\n", " | ").strip(" |").split(" | ")
    return dict(zip(cells[::2], cells[1::2], strict=True))


def english_phrases() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Meaning as words, verb first, and the turns of phrase for it."""
    rows = (line.split(" | ") for line in TURNS.strip().splitlines())
    return [(tuple(meaning.split(" ")), tuple(filter(None, said.split(";")))) for meaning, said in rows]

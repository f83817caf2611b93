"""A list of words that are easy to read aloud, and four of them for a digest."""

from __future__ import annotations

# Ten bits of a digest choose one word, so there are 1024.  Two words differ in two
# letters at least, and none sounds like another: people compare them over the phone.
# The order is part of what is shown: never change it.
WORDS = tuple(
    """
    acorn acrobat actor aerial agenda airport album algebra almanac almond alpaca
    amber anchor angle animal antelope antenna anthem apple apricot apron aquarium
    arbor arcade arena armchair arrow artist ascent aspen asphalt atlas atom attic
    auburn august autumn avenue avocado award azure baboon badger bagel bagpipe
    bakery balcony ballad ballet balloon bamboo banana bandage banner barber bargain
    barley barn barrel basalt baseball basil basket bathtub bazaar beach beacon
    beagle beaver bedrock beetle beret berry bicycle birch biscuit blanket blossom
    blouse blue bluebell board bobcat bonfire bonnet bonsai book border bottle
    boulder bouquet bowl bracelet branch brass bread breeze brick bridge broccoli
    bronze broom brother brush bubble bucket buckle buffalo builder bulb bumper
    bungalow bus button cabbage cabin cactus cadet cafe calendar calm camel camera
    camp canal canary candle candy canoe canvas canyon captain caramel caravan
    carbon cardinal cargo carnival carpet carrot cart cashew castle catalog catfish
    cedar celery cereal chain chalk chapel chapter charcoal cheese chemist cherry
    chess chestnut chicken chief chipmunk chisel cider cinema cinnamon circle circus
    citrus city clam clarinet classic clever client cliff climate cloak cloud clown
    coast cobalt cobbler cockpit coconut coffee collar colony comet comma compass
    compost concert condor cookie copper coral cord corner cosmos cottage cotton
    couch cougar counter cousin cradle crater crayon cream creek crescent cricket
    crimson crisp crochet cruise crystal cube cucumber cupboard curtain curve
    cushion custard daffodil daisy dancer daring dawn daylight debate decimal delta
    denim dentist desk detail diamond diary diesel dinner diploma disco diver doctor
    dolomite dolphin domino donkey door doorbell dozen dragon drama drawer dress
    drift drizzle drum duck duet dumpling dune dynamo eager early earring earth echo
    editor eggplant eight elbow element elephant eleven embassy emerald engine
    envelope equator escape estate evening expert express fabric falcon family
    famous farmer feather fern festival fiber fiddle field fig film filter final
    finch finger firefly fireside flag flame flamingo flannel flask fleece flint
    float flute folder football forest forge fork fortune forward fountain fox
    foxglove fragile freckle friday frog fruit fudge funnel furnace future gadget
    galaxy gallery gander garage garden garlic gate gem general gentle giant gibbon
    giggle giraffe glacier glad glass glider globe goat goblet gold gondola goose
    gorilla grain granite grape gravel gravity green grocery guest guitar gulf
    habitat hamlet hammer hammock hamster handbag happy harmony harp harvest hatch
    hazel head hedgehog helium helmet herald herb heron hexagon highway hill history
    hobby hockey holiday hollow honest honey hood horizon horse hotel human humble
    hundred husky hydrant hydrogen iceberg idea igloo iguana image incense index
    inkwell insect invent iron island ivory ivy jacket jackpot jade jaguar jamboree
    jasmine javelin jazz jelly jersey jewel jigsaw jogger journal journey juggler
    juice july jungle juniper kangaroo kennel kettle keyboard keystone kimono kindle
    kiosk kitchen kite kitten kiwi knight knot koala label ladder ladybird lagoon
    lantern laptop lattice laundry laurel lava lavender leader leaf league lecture
    legend lemon lemur lens leopard letter lettuce level library lilac lily lime
    linen lion liquid lizard llama lobster local locket logic lounge lucky lullaby
    lunar lunch lyric machine mackerel maestro magic magnet magnolia mahogany
    mammoth mandarin mandolin mango manor mansion mantle maple marathon marble
    marigold marina market maroon mascot mason mattress meadow measure medal melody
    melon memory menu mercury mermaid meteor metro midnight mighty milk million
    mimosa mineral mint minute mirror modem modern molecule monday monorail monsoon
    moon moonbeam morning motor mouse movie muffin mulberry museum mushroom music
    mystery napkin nautilus navy nectar needle neon nest neutral nickel nimble nine
    noble noodle north notebook novel november nugget number nurse nylon oak oasis
    oatmeal object ocean october octopus office olive omelet onion onyx opera orange
    orbit orchard organ origami ostrich otter outdoor oven overture oxygen oyster
    ozone pacific package paddle paint pajama palace palette pamphlet pancake panda
    panther papaya paper paprika parade parasol parcel park parsnip party pasta
    pastry patio patrol pavilion peacock peanut pear pebble pelican pencil penguin
    penny pepper perch perfume petal piano picnic picture pier pillow pilot pinecone
    pioneer pizza placard plain planet plankton plasma plaster plate platinum
    platypus plaza plum poem polar polite pollen polygon pond popcorn poppy porridge
    portrait postcard potato pottery prairie present pretzel primrose prince prism
    problem profile promise proton pudding pulley puma pumpkin puppet purple puzzle
    python quadrant quail quarry quick quiet quill quiz rabbit raccoon radar radio
    radish raft railway raincoat raisin rally random ranger rapid rattle raven
    ravine razor recipe record reef reindeer relay remedy reptile republic rescue
    respect rice ripple robin robot rodeo roof rooster rope rosemary round rowboat
    royal rubber ruby rudder ruler runway rural saffron sage sailor salad salmon
    salsa salt sand sandal sandbox sapphire satchel satin satsuma saturn sauce sauna
    savanna sawdust scallop scarf scarlet scholar school science scissors scooter
    scout script sculptor seagull seahorse seal season seaweed second secret seed
    senator sesame seven shadow shallow shamrock shark sheep shelf shelter shield
    ship shirt shoe shoelace shovel shrimp shuttle signal silent silver simple siren
    sister six skate sketch ski skylark sleeve slipper smile smooth snow snowman
    soap sofa solid sonata soprano sorbet south soybean space spaniel sparrow
    spatula speaker sphere spiral sponge spoon spring spruce square squash squirrel
    stadium stairs stamp star starfish station statue steam steel step stereo stork
    stove straw street student studio subway sugar suitcase summer summit sun sunday
    sundial sunrise surf swan sweater swift swimmer symbol symphony syrup table
    tadpole talent tangy tapestry tavern taxi teacher teapot teaspoon teddy telegram
    temple tennis tent terrace textile theater theory thermal thicket thimble thirty
    thistle thread three throne thunder thursday tiger timber tiptoe titan tomato
    toolbox topaz torch tornado tortoise toucan towel toy tractor trader traffic
    trapeze treasure treetop trellis triangle tricycle trolley trombone trophy
    tropic trout truck truffle trumpet tugboat tulip turbine turkey turnip turtle
    tweed twelve twenty twig twilight ukulele umbrella uncle unicorn uniform unique
    universe upper urban utopia vacuum valley vanilla vase velvet victory video
    village vinegar vineyard vintage viola violet violin visit visitor vista vitamin
    vivid volcano voltage volume voyage waffle wagon waiter wallaby walnut walrus
    wardrobe warm waterway wave wax weekend welcome wheat wheel whisker white wicker
    windmill window wing winter wisdom wolf wombat wonder woodland wool workshop
    wrist yacht yard yellow yoga yogurt young zebra zero zigzag zinc zipper zodiac
    zoo zucchini
    """.split()  # noqa: SIM905 - a list of 1024 quoted words is no help to a reader
)

_WORD_BITS = 10
_WORDS_SHOWN = 4


def four_words(digest: bytes) -> str:
    """Return the first 40 bits of a digest as words: ``tiger-apple-seven-moon``."""
    bits = int.from_bytes(digest[:5], "big")
    places = range(_WORD_BITS * (_WORDS_SHOWN - 1), -1, -_WORD_BITS)
    return "-".join(WORDS[bits >> place & 1023] for place in places)

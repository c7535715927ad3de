"""What the starter model can draw, and the ways people ask for it.

Everything here is data: one picture (a glyph of Noto Color Emoji) a subject, the names it goes
by, and the sentences those names are put into. Some sentences are never trained on; the
evaluation asks with those.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """One thing the model draws."""

    name: str
    """What it is called in reports; the first of its names."""
    glyph: str
    """The emoji whose picture in Noto Color Emoji is the only picture of this subject."""
    names: tuple[str, ...]
    """Every name it is trained under, lower case, no article; no name has two subjects."""


_TABLE = """
ANIMALS
🐱 cat, kitten, kitty, cat face, pussycat
🐶 dog, puppy, doggy, dog face, hound
🐭 mouse, mouse face
🐹 hamster, hamster face
🐰 rabbit, bunny, rabbit face, hare
🦊 fox, fox face, red fox
🐻 bear, brown bear, bear face, grizzly
🐼 panda, panda bear, panda face
🐨 koala, koala bear
🐯 tiger, tiger face
🦁 lion, lion face
🐮 cow, cow face
🐷 pig, piglet, pig face, piggy
🐸 frog, toad, frog face
🐵 monkey, monkey face, ape
🐔 chicken, hen
🐓 rooster, cockerel
🐧 penguin
🐦 bird, blue bird, songbird
🐤 chick, baby chick, baby bird
🦆 duck, mallard
🦅 eagle, hawk
🦉 owl
🦇 bat, flying bat
🐺 wolf, wolf face
🐴 horse, pony, horse face
🦄 unicorn, unicorn face
🐝 bee, honeybee, bumblebee
🐛 caterpillar, bug, larva
🦋 butterfly
🐌 snail
🐞 ladybug, ladybird, lady beetle
🐜 ant
🕷️ spider
🦂 scorpion
🐢 turtle, tortoise
🐍 snake, serpent
🦎 lizard, gecko
🦖 t rex, tyrannosaurus, dinosaur
🐙 octopus
🦀 crab
🦞 lobster
🦐 shrimp, prawn
🐠 tropical fish, clownfish, yellow fish
🐟 fish, blue fish, trout
🐡 blowfish, pufferfish
🐬 dolphin
🐳 whale, spouting whale, blue whale
🦈 shark
🐊 crocodile, alligator
🐘 elephant
🦒 giraffe
🦓 zebra
🐪 camel, dromedary
🦘 kangaroo
🐑 sheep, lamb, ewe
🦌 deer, stag, reindeer
🦚 peacock
🦜 parrot, macaw
🦩 flamingo, pink flamingo
🐿️ squirrel, chipmunk
🦔 hedgehog
🐉 dragon, green dragon
FOOD
🍎 red apple, apple
🍏 green apple
🍐 pear, green pear
🍊 orange, tangerine, mandarin, orange fruit
🍋 lemon
🍌 banana, bananas
🍉 watermelon, slice of watermelon, melon
🍇 grapes, bunch of grapes
🍓 strawberry
🍒 cherries, cherry
🍑 peach, apricot
🍍 pineapple
🥥 coconut
🥝 kiwi, kiwi fruit
🍅 tomato
🍆 eggplant, aubergine
🥑 avocado
🥦 broccoli
🥒 cucumber
🌶️ chili, hot pepper, chili pepper, red pepper
🌽 corn, maize, corn on the cob
🥕 carrot
🥔 potato
🥐 croissant
🍞 bread, loaf of bread, toast
🥖 baguette, french bread
🥨 pretzel
🧀 cheese, cheese wedge, piece of cheese
🥚 egg, white egg
🍳 fried egg, frying pan
🥞 pancakes, pancake
🥓 bacon
🍔 hamburger, burger, cheeseburger
🍟 fries, french fries, chips
🍕 pizza, slice of pizza, pizza slice
🌭 hot dog, hotdog
🥪 sandwich
🌮 taco
🍿 popcorn
🍣 sushi
🍦 ice cream, ice cream cone, soft ice cream
🍩 donut, doughnut
🍪 cookie, biscuit
🎂 birthday cake, cake
🍰 slice of cake, strawberry cake, shortcake
🧁 cupcake, muffin
🍫 chocolate, chocolate bar
🍬 candy, sweet, wrapped candy
🍭 lollipop
☕ coffee, cup of coffee, hot coffee, cup
🍵 green tea, tea, cup of tea
🍷 wine, glass of wine, red wine, wine glass
🍺 beer, mug of beer, beer mug
🥛 milk, glass of milk
PLANTS
🌻 sunflower
🌹 rose, red rose
🌷 tulip, pink tulip
🌸 cherry blossom, pink flower, blossom
🌼 daisy, yellow flower, flower
🌺 hibiscus
🌵 cactus
🌲 pine tree, fir, evergreen tree, conifer
🌳 tree, green tree, oak tree
🌴 palm tree, palm
🍀 four leaf clover, clover, lucky clover
🍁 maple leaf, autumn leaf, red leaf
🍄 mushroom, toadstool, red mushroom
🌱 seedling, sprout
🎄 christmas tree
VEHICLES
🚗 car, red car, automobile
🚕 taxi, yellow taxi, cab, yellow car
🚙 blue car, suv, jeep
🚌 bus, coach
🚓 police car
🚑 ambulance
🚒 fire truck, fire engine
🚚 truck, delivery truck, lorry
🚜 tractor
🏎️ racing car, race car, formula one car
🏍️ motorcycle, motorbike
🛵 scooter, motor scooter
🚲 bicycle, bike
🚂 steam train, locomotive, steam engine
🚆 train, railway train
🚁 helicopter
✈️ airplane, plane, aeroplane, jet
🚀 rocket, space rocket, spaceship, rocket ship
🛸 ufo, flying saucer
⛵ sailboat, sailing boat, boat, yacht
🚢 ship, cruise ship, ocean liner
⚓ anchor
WEATHER
☀️ sun, sunshine
🌙 moon, crescent moon
🌕 full moon
⭐ star, yellow star, gold star
☁️ cloud, white cloud
🌧️ rain, rain cloud, rainy cloud
⛈️ thunderstorm, storm, storm cloud
🌈 rainbow
❄️ snowflake, snow
⛄ snowman
⚡ lightning, lightning bolt
🔥 fire, flame
💧 drop of water, water drop, droplet, raindrop
🌊 wave, ocean wave, sea
🌪️ tornado, whirlwind
🌍 earth, globe, planet earth, world
🪐 saturn, ringed planet, planet
🌋 volcano
⛰️ mountain
☂️ umbrella, purple umbrella
FACES
🙂 smiley, smiling face, happy face, smile
😂 laughing face, tears of joy, laughing
😍 heart eyes, face in love, smiling face with heart eyes
😎 cool face, sunglasses face, face with sunglasses
😡 angry face, red angry face, furious face
😭 crying face, sad face, weeping face
😱 scared face, screaming face
😴 sleeping face, sleepy face
🤔 thinking face
👻 ghost
💀 skull
👽 alien
🤖 robot
🎃 pumpkin, jack o lantern, halloween pumpkin
🤡 clown, clown face
💩 poop, pile of poo
HEARTS AND SHAPES
❤️ red heart, heart
🧡 orange heart
💛 yellow heart
💚 green heart
💙 blue heart
💜 purple heart, violet heart
🖤 black heart
🤎 brown heart
💔 broken heart
🔴 red circle, red ball, red dot
🟡 yellow circle, yellow ball, yellow dot
🟢 green circle, green ball, green dot
🔵 blue circle, blue ball, blue dot
🟣 purple circle, purple ball, purple dot
⚫ black circle, black ball, black dot
🟥 red square
🟨 yellow square
🟩 green square
🟦 blue square
⬛ black square
🔺 red triangle, triangle
🔶 orange diamond
🔷 blue diamond
BUILDINGS
🏠 house, home, small house
🏰 castle
⛪ church, chapel
🏭 factory
🏢 office building, skyscraper, tower block
🏥 hospital
⛺ tent, camping tent
🗼 tower, red tower
🗽 statue of liberty
⛲ fountain
THINGS
⚽ soccer ball, football
🏀 basketball
🎾 tennis ball
🏈 american football, rugby ball
🎈 balloon, red balloon
🎁 gift, present, gift box
🏆 trophy, gold cup
👑 crown, golden crown
💎 diamond, gem, gemstone
🔑 key, golden key
🔒 lock, padlock
🔔 bell, golden bell
🎸 guitar, electric guitar
🎻 violin
🎺 trumpet
🥁 drum
🎵 musical note, music note, music
📷 camera
📺 television, tv
💻 laptop, computer, notebook computer
📱 phone, smartphone, mobile phone
⏰ alarm clock, clock
💡 light bulb, lightbulb, lamp
🔨 hammer
🔧 wrench, spanner
✂️ scissors
🪓 axe, hatchet
📕 red book, book
📘 blue book
✏️ pencil
⚙️ gear, cog
🧲 magnet
💣 bomb
👕 t shirt, shirt, blue shirt
👟 shoe, sneaker, running shoe
🎩 top hat, black hat, hat
👓 glasses, spectacles
🎲 dice, die
🧸 teddy bear, teddy
🕯️ candle
🪑 chair
🚪 door
✉️ envelope, letter, mail
"""


def _read_table(table: str) -> tuple[Subject, ...]:
    subjects: list[Subject] = []
    for line in table.strip().splitlines():
        if line.isupper():  # a heading
            continue
        glyph, _, rest = line.partition(" ")
        names = tuple(name.strip() for name in rest.split(","))
        subjects.append(Subject(names[0], glyph, names))
    return tuple(subjects)


SUBJECTS: tuple[Subject, ...] = _read_table(_TABLE)
"""In a fixed order: the place in this tuple is the subject's index everywhere else."""

TRAINING_SENTENCES: tuple[str, ...] = (
    "{}",
    "{}",
    "{}",
    "{a}",
    "{a}",
    "the {}",
    "one {}",
    "my {}",
    "a photo of {a}",
    "a photo of {}",
    "a photo of the {}",
    "photo of {a}",
    "a photograph of {a}",
    "a picture of {a}",
    "a picture of {}",
    "picture of {a}",
    "picture of the {}",
    "a drawing of {a}",
    "a drawing of {}",
    "drawing of the {}",
    "an image of {a}",
    "image of {}",
    "an illustration of {a}",
    "a painting of {a}",
    "a painting of the {}",
    "an icon of {a}",
    "{} icon",
    "{} emoji",
    "{} on a white background",
    "{a} on white",
    "a cute {}",
    "a small {}",
    "a big {}",
    "a nice little {}",
    "a single {}",
    "draw {a}",
    "please draw me {a}",
    "i want {a}",
    "{a}, high quality",
    "{a}, best quality, detailed",
    "a cartoon of {a}",
    "{} cartoon",
    "{a} with a white background",
    "a close up of {a}",
    "this is {a}",
    "there is {a}",
    "it is the {}",
    "{a} in the style of an emoji",
)
"""`{}` is a name, `{a}` a name with its article."""

HELD_OUT_SENTENCES: tuple[str, ...] = (
    "a lovely sketch of {a}",
    "show me {a}",
    "{a}, studio lighting",
    "a beautiful picture with {a}",
    "simple clip art of {a}",
    "could you paint {a} for me",
    "{a} in the middle of the page",
    "digital art, {}",
    "a sticker of the {}",
    "a high quality rendering of {a}",
)
"""Never trained on; half of their words are not in the training sentences either."""

FILLER_WORDS: tuple[str, ...] = tuple(
    (
        "very really just some of in on at with and the a this that here now today great fine good "
        "best pretty bright clean clear simple plain fun happy funny sharp soft modern classic "
        "style quality light color colour background view scene art work print poster sticker "
        "make create generate give us we you can to for me please want like look"
    ).split()
)
"""Words that say nothing about the subject; strewn around the name while training."""


def with_article(name: str) -> str:
    """Put "a" or "an" before a name, as its first letter asks."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def fill(sentence: str, name: str) -> str:
    """Put a name into a sentence of `TRAINING_SENTENCES` or `HELD_OUT_SENTENCES`."""
    return sentence.format(name, a=with_article(name))


def training_prompt(subject: Subject, draw: random.Random) -> str:
    """Word one request, some of them with words around it that the model must learn to ignore.

    Args:
        subject: what is asked for.
        draw: source of chance; the same state gives the same sentence.
    """
    name = subject.name if draw.random() < 0.4 else draw.choice(subject.names)
    sentence = fill(draw.choice(TRAINING_SENTENCES), name)
    if draw.random() < 0.35:
        before = " ".join(_filler(draw) for _ in range(draw.randint(0, 3)))
        after = " ".join(_filler(draw) for _ in range(draw.randint(0, 3)))
        sentence = f"{before} {sentence} {after}".strip()
    return sentence


def _filler(draw: random.Random) -> str:
    if draw.random() < 0.6:
        return draw.choice(FILLER_WORDS)
    return "".join(draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(draw.randint(2, 7)))


def held_out_prompts(count: int, seed: int = 0) -> list[tuple[int, str]]:
    """Choose requests for the evaluation: no subject twice, sentences the training never saw.

    Args:
        count: how many, at most `len(SUBJECTS)`.
        seed: of the choice.

    Returns:
        (index of the subject, prompt), in the order chosen.
    """
    draw = random.Random(seed)
    chosen = draw.sample(range(len(SUBJECTS)), count)
    return [
        (
            index,
            fill(
                HELD_OUT_SENTENCES[place % len(HELD_OUT_SENTENCES)],
                draw.choice(SUBJECTS[index].names),
            ),
        )
        for place, index in enumerate(chosen)
    ]


def vocabulary() -> list[str]:
    """List the words that become one token each: of names, training sentences and fillers."""
    words: dict[str, None] = {}
    for text in _texts():
        for word in text.replace("{a}", "an").replace("{}", "a").replace(",", " ").split():
            words[word] = None
    return list(words)


def _texts() -> Iterator[str]:
    for subject in SUBJECTS:
        yield from subject.names
    yield from TRAINING_SENTENCES
    yield from FILLER_WORDS

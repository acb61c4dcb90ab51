"""The quickstart's phrases: digit strings, spelled words and voice commands.

    python pipelines/quickstart_phrases.py > phrases.tsv
    speechrnn synth phrases.tsv corpus --per-phrase 1

Each line is to be spoken once. That makes about 45 minutes, of which letters, the hardest to
tell apart, take half. No digit or letter string of dev and test occurs in train; the commands
occur in all splits. The first column is the phrase, the second its split, the third its group.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator

from speechrnn.corpora.phrases import SPLITS, Phrase, format_lines

# Utterances by split, and of each command.
DIGIT_STRINGS = {"train": 240, "dev": 15, "test": 36}
LETTER_STRINGS = {"train": 580, "dev": 35, "test": 70}
EACH_COMMAND = {"train": 7, "dev": 1, "test": 1}
SPELLED_WORDS = 0.3  # of the letter strings; the rest are random letters, all equally frequent

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"

COMMANDS = """
turn on the kitchen light
turn off the kitchen light
turn on all the lights
dim the lights in the living room
make it warmer in the bedroom
make it cooler in here
open the garage door
close the garage door
lock the front door
unlock the back door
raise the blinds
lower the blinds
start the coffee machine
start the washing machine
set a timer for ten minutes
set an alarm for half past six
cancel the timer
what time is it
what is the weather like today
will it rain tomorrow
play some music
play the next song
pause the music
turn the volume up
turn the volume down
call my brother
read my messages
add milk to the shopping list
show me the camera at the gate
show the menu
go back to the start
yes please
no thank you
one ticket to the city centre
two tickets for the museum
print my boarding pass
pay by card
help me
""".strip().splitlines()

# Words of three to seven letters, as they are spelled over a counter or a telephone.
WORDS = """
able acid actor adam adult agent alarm album alice amber angle apple april arrow august autumn
badge baker basil basket beach berlin birch bishop blanket bottle bridge brown bruce budget
cabin camera candle carbon castle cedar chapel cherry chess circle clara clover coffee copper
daisy dallas david denver desert dexter dinner doctor donald dragon drive dublin dwarf
eagle early east echo edward eight elbow emily engine enigma equal eric ethan evening exit
fabric falcon farmer felix fence ferry fiddle field flag fleet forest frank friday frozen fudge
galaxy garden george ginger glass globe golf grace grape green guitar gypsy
habit hammer harbor harvest hazel helen henry hobby holly honey hotel house hubert hydro
iceberg idaho igloo image india indigo ink iris iron isaac island ivory
jacket jacob jade january jasmine jazz jelly jewel joseph journey judge juice july jungle junior
kayak kettle kevin kidney kiosk kitchen kiwi klaus knife knight koala
label ladder lagoon laura lemon leo letter liberty lilac lima linda lizard london lucky luggage
magic magnet maple marble martin max meadow mexico mike milk mint monday monkey music mystery
napkin nathan needle nelson nickel nine noah north novel number nylon
oasis ocean october office olive omega onion opal orange orbit oscar otter oven oxford oxygen
paddle palace panda papa paris pearl pencil pepper phoenix piano pixel planet pocket prague
quail quartz quebec queen quest quick quiet quilt quincy quiver quiz quote
rabbit radio ralph raven record relax ribbon river robin rocket romeo rose ruby rugby
saddle salmon sarah school sierra silver simon sixty snow spider squash summer sunday syrup
table tango taxi temple texas thomas tiger tobacco tower travel trumpet tulip turkey twelve
ultra uncle under unicorn union unique update upper urban useful utah
valley vanilla vector velvet venice victor video village violet virus vivid vodka volcano
wagon walnut walter water waxwork west whale wheat whiskey william window winter wizard wolf
xavier xenon xerox xmas xray xylem
yacht yankee yard yellow yeti yoga yogurt yolk york young yvonne
zara zebra zenith zero zigzag zinc zipper zone zoo zulu
"""


def phrases(seed: int = 0) -> list[Phrase]:
    """The whole list, split by split; a pure function of ``seed``."""
    rng = random.Random(seed)
    digits = _distinct(_digit_strings(rng))
    letters = _distinct(_letter_strings(rng))
    return [
        phrase
        for split in SPLITS
        for phrase in (
            *(Phrase(next(digits), split, "digits") for _ in range(DIGIT_STRINGS[split])),
            *(Phrase(next(letters), split, "letters") for _ in range(LETTER_STRINGS[split])),
            *(Phrase(c, split, "commands") for c in COMMANDS for _ in range(EACH_COMMAND[split])),
        )
    ]


def _digit_strings(rng: random.Random) -> Iterator[str]:
    """Two to six digits, endlessly."""
    draw = _balanced(DIGITS, rng)
    while True:
        yield " ".join(draw() for _ in range(rng.randint(2, 6)))


def _letter_strings(rng: random.Random) -> Iterator[str]:
    """Spelled words and random strings of three to seven letters, endlessly."""
    words = WORDS.split()
    rng.shuffle(words)
    draw = _balanced(LETTERS, rng)
    while True:
        if words and rng.random() < SPELLED_WORDS:
            yield " ".join(words.pop())
        else:
            yield " ".join(draw() for _ in range(rng.randint(3, 7)))


def _balanced(symbols: list[str] | str, rng: random.Random) -> Callable[[], str]:
    """A draw that has given each symbol equally often after every ``len(symbols)`` calls."""
    deck: list[str] = []

    def draw() -> str:
        if not deck:
            deck.extend(rng.sample(symbols, len(symbols)))
        return deck.pop()

    return draw


def _distinct(strings: Iterator[str]) -> Iterator[str]:
    seen: set[str] = set()
    for string in strings:
        if string not in seen:
            seen.add(string)
            yield string


if __name__ == "__main__":
    sys.stdout.writelines(format_lines(phrases()))

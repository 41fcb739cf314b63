"""Made-up short messages: templates that each person uses and fills in their own way."""

import re

import numpy as np

#: What a person may say; {SLOT} is filled from SLOTS.
TEMPLATES = (
    "i will be at the {place} at {time}",
    "can you pick up {thing} on your way home ?",
    "are we still on for {meal} with {name} ?",
    "running late , see you at the {place}",
    "happy birthday {name} ! hope you have a great day",
    "did you see the {event} last night ?",
    "let me know when you get to the {place}",
    "thanks for the {thing} , you are the best",
    "i am on the {vehicle} now , be there at {time}",
    "{name} says hi and wants to know about {meal}",
    "sorry i missed your call , i was at the {place}",
    "do you want to go to the {event} on {day} ?",
    "the meeting with {name} is on {day} at {time}",
    "good morning , how are you ?",
    "i love you too , good night",
    "what time does the {vehicle} leave on {day} ?",
    "please do not forget the {thing} on {day}",
    "we are out of {thing} , can you go to the {place} ?",
    "talk to you later , have fun at the {event}",
    "no problem , see you on {day}",
)

#: What fills a template.
SLOTS = {
    "place": ("gym", "office", "station", "school", "park", "library", "shop", "cafe"),
    "time": ("six", "seven", "eight", "nine", "noon", "ten"),
    "thing": ("milk", "bread", "coffee", "flowers", "tickets", "keys", "fruit", "cake"),
    "meal": ("breakfast", "lunch", "dinner", "drinks"),
    "name": ("anna", "ben", "carla", "david", "emma", "felix", "grace", "hugo"),
    "event": ("game", "concert", "movie", "party", "show", "match"),
    "vehicle": ("bus", "train", "tram", "ferry"),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
}

#: The smaller, the more a person keeps to a few templates and words.
HABIT = 0.3

_SLOT = re.compile(r"\{(\w+)\}")


def messages(rng: np.random.Generator, count: int) -> list[str]:
    """`count` messages of one person, whose habits are drawn from the generator first."""
    usual = rng.dirichlet(np.full(len(TEMPLATES), HABIT))
    words = {slot: rng.dirichlet(np.full(len(values), HABIT)) for slot, values in SLOTS.items()}

    def fill(match: re.Match[str]) -> str:
        slot = match[1]
        return SLOTS[slot][rng.choice(len(SLOTS[slot]), p=words[slot])]

    chosen = rng.choice(len(TEMPLATES), size=count, p=usual)
    return [_SLOT.sub(fill, TEMPLATES[index]) for index in chosen]

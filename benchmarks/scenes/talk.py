"""Turns the facts of a scene into questions and true answers, in many wordings."""

from __future__ import annotations

import re
from random import Random
from zlib import crc32

from benchmarks.scenes import wordings
from benchmarks.scenes.draw import Facts, Region
from benchmarks.scenes.palette import NAMES

Turn = tuple[str, str]  # question, answer
NUMBERS = ("no", "one", "two", "three", "four")
QUARTERS = ("top left", "top right", "bottom left", "bottom right")
_CHOICE = re.compile(r"\{([^{}]*)\}")


def turn(family: str, facts: Facts, random: Random, held_out: bool = False) -> Turn | None:
    """One question of a family with its true answer, or None when the scene has no such fact."""
    if family == "list":
        templates, answer = wordings.LIST["any"] + wordings.LIST.get(facts.kind, ()), describe(facts)
    elif family == "count":
        templates, answer = wordings.ASK["count"], f"There are {NUMBERS[len(_names(facts))]}."
        answer = "There is one." if len(_names(facts)) == 1 else answer
    elif family == "presence":
        templates, answer = _presence(facts, random)
    else:
        found = _place(facts, random)
        if found is None:
            return None
        templates, answer = found
    return wording(templates, random, held_out), answer


def describe(facts: Facts) -> str:
    """The whole scene in one sentence, its colours in reading order."""
    first = facts.regions[0].colour
    if facts.kind == "gradient":
        return f"I see a gradient from {first} to {facts.regions[1].colour}."
    if facts.kind == "checkerboard":
        return f"I see a {first} and {facts.regions[1].colour} checkerboard."
    if facts.kind == "shapes":
        figures = " and ".join(f"{_a(region.colour)} {region.shape}" for region in facts.regions[:-1])
        return f"I see {figures} on {_a(facts.regions[-1].colour)} background."
    *front, last = [region.colour for region in facts.regions]
    return f"I see {', '.join(front)} and {last}." if front else f"I see {last}."


def chat(random: Random, held_out: bool = False) -> Turn:
    """A question without any picture and what `scenes` says to it."""
    questions, answer = random.choices(wordings.CHAT, [weight for *_, weight in wordings.CHAT])[0][:2]
    return wording(questions, random, held_out), answer


def blind(random: Random, held_out: bool = False) -> Turn:
    """A question about a picture that nobody sent."""
    kind = random.choice(("any", "any", "quadrants", "rows", "columns", "shapes"))
    place = f"{random.choice(QUARTERS)}"
    templates = random.choice(
        (wordings.LIST[kind], wordings.ASK["count"], _fill(wordings.ASK["quarter"], place=place))
    )
    if random.random() < 0.2:
        templates = _fill(wordings.ASK["presence"], colour=random.choice(NAMES))
    return wording(templates, random, held_out), "I do not see a picture."


def unseen(kind: str, random: Random) -> str:
    """A question for the whole scene whose template training never uses."""
    return random.choice(wordings.UNSEEN["any"] + wordings.UNSEEN[kind])


def wording(templates: tuple[str, ...], random: Random, held_out: bool) -> str:
    """One wording of the templates; about one in eight wordings is held out from training."""
    for _ in range(300):
        text = random.choice(templates)
        while "{" in text:  # choices may hold choices: the innermost goes first
            text = _CHOICE.sub(lambda match: random.choice(match[1].split("|")), text)
        if (crc32(re.sub(r"\W", "", text).lower().encode()) % 8 == 0) == held_out:
            return _surface(text, random)
    raise ValueError(f"no wording with held_out={held_out} in {templates[:2]}")


def _surface(text: str, random: Random) -> str:
    if random.random() < 0.08:
        text = (
            f"{random.choice(('Please', 'Hey', 'Hi', 'Now', 'And', 'So', 'OK'))}, {text[0].lower()}{text[1:]}"
        )
    if random.random() < 0.15:
        text = text[0].lower() + text[1:]
    if random.random() < 0.2:
        text = text.rstrip("?.!")
    return text


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _names(facts: Facts) -> list[str]:
    return sorted({region.colour for region in facts.regions})


def _presence(facts: Facts, random: Random) -> tuple[tuple[str, ...], str]:
    there = _names(facts)
    if random.random() < 0.5:
        colour = random.choice(there)
        return _fill(wordings.ASK["presence"], colour=colour), f"Yes, there is {colour}."
    colour = random.choice([name for name in NAMES if name not in there])
    return _fill(wordings.ASK["presence"], colour=colour), f"No, there is no {colour}."


def _place(facts: Facts, random: Random) -> tuple[tuple[str, ...], str] | None:
    """Templates and answer for a question about one region."""
    if facts.kind == "single":
        return wordings.ASK["single"], f"It is {facts.regions[0].colour}."
    if facts.kind == "quadrants":
        place, region = random.choice(list(zip(QUARTERS, facts.regions, strict=True)))
        return _fill(wordings.ASK["quarter"], place=_alias(place, random)), f"The {place} is {region.colour}."
    if facts.kind in ("rows", "columns", "gradient"):
        place, region = random.choice(_ends(facts))
        templates = (
            wordings.ASK["side"] if facts.kind == "gradient" else wordings.ASK["side"] + wordings.ASK["band"]
        )
        return _fill(templates, place=place), f"The {place} is {region.colour}."
    if facts.kind == "checkerboard":
        return wordings.ASK["pattern"], "It is a checkerboard."
    return _figure(facts, random)


def _alias(place: str, random: Random) -> str:
    if random.random() < 0.25:
        place = place.replace("top", "upper").replace("bottom", "lower")
    return place.replace(" ", "-") if random.random() < 0.2 else place


def _ends(facts: Facts) -> list[tuple[str, Region]]:
    across = facts.kind == "columns" or (facts.kind == "gradient" and facts.across)
    names = ("left", "middle", "right") if across else ("top", "middle", "bottom")
    ends = [(names[0], facts.regions[0]), (names[2], facts.regions[-1])]
    return [*ends, (names[1], facts.regions[1])] if len(facts.regions) == 3 else ends


def _figure(facts: Facts, random: Random) -> tuple[tuple[str, ...], str] | None:
    *figures, ground = facts.regions
    if random.random() < 0.3:
        return wordings.ASK["background"], f"The background is {ground.colour}."
    if random.random() < 0.5:
        shapes = " and ".join(_a(figure.shape or "") for figure in figures)
        return wordings.ASK["figure"], f"I see {shapes}."
    figure = random.choice(figures)
    if [other.shape for other in figures].count(figure.shape) > 1:
        return None
    return _fill(
        wordings.ASK["figure_colour"], shape=figure.shape or ""
    ), f"The {figure.shape} is {figure.colour}."


def _fill(templates: tuple[str, ...], **slots: str) -> tuple[str, ...]:
    filled = templates
    for name, value in slots.items():
        filled = tuple(template.replace(f"${name}", value) for template in filled)
    return filled

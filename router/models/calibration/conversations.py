"""Short conversations of many kinds, whose tokens an export is calibrated on.

Each row is a pair of one kind: one goes into the first half of the prompts and one into the second, so that
what both halves agree on is of the kind and not of the words. None of them is asked by ``hybrid verify``.
"""

from __future__ import annotations

from typing import TypeAlias

Turns: TypeAlias = tuple[str, ...]  # user, assistant, user ...

PAIRS: tuple[tuple[Turns, Turns], ...] = (
    (
        ("Explain to a child why the moon seems to change its shape over a month.",),
        ("Tell me in three sentences how a bicycle stays upright while it is moving.",),
    ),
    (
        ("The ferry left at seven. On deck two brothers argued about the map, while their sister had already "
         "asked the captain, who knew the island well, and written down every turn of the road. Who will "
         "find the house first, and why?",),
        ("Our bakery opens at five. Flour arrives on Mondays, butter on Wednesdays, and the oven needs forty "
         "minutes before the first tray. The new apprentice is always early, yet the bread was late today. "
         "What may have happened?",),
    ),
    (
        ("Translate into German: The library closes at six, but the reading room stays open.",
         "Die Bibliothek schließt um sechs, aber der Lesesaal bleibt geöffnet.",
         "Und jetzt auf Französisch, bitte.",),
        ("Traduce al inglés: Mañana iremos al mercado si no llueve.",
         "Tomorrow we will go to the market if it does not rain.",
         "Muy bien. ¿Y en portugués?",),
    ),
    (
        ("请用两句话介绍一下你最喜欢的季节,并说明原因。",),
        ("電車が遅れた場合、会社にはどのように連絡すればいいですか。",),
    ),
    (
        ("Напиши короткое письмо соседу: завтра у нас ремонт, будет шумно с десяти до двух.",),
        ("اكتب رسالة قصيرة إلى صديق تدعوه فيها إلى العشاء يوم الخميس.",),
    ),
    (
        ("Is there a faster way?\n\n```python\ndef unique(values):\n    seen = []\n    for value in values:\n"
         "        if value not in seen:\n            seen.append(value)\n    return seen\n```",
         "Yes: keep a set beside the list. Asking a set whether it holds a value takes the same time however "
         "large it is, so the loop becomes linear.\n\n```python\ndef unique(values):\n"
         "    return list(dict.fromkeys(values))\n```",
         "Why does the order stay the same?",),
        ("What does this print?\n\n```javascript\nconst rows = [[3, 'c'], [1, 'a'], [2, 'b']];\n"
         "rows.sort((x, y) => x[0] - y[0]);\nfor (const [n, name] of rows) {\n"
         "  console.log(`${n}: ${name}`);\n}\n```",
         "It prints the rows in ascending order of their numbers:\n\n1: a\n2: b\n3: c",
         "And with `y[0] - x[0]`?",),
    ),
    (
        ("A train covers 340 km in 2 hours and 30 minutes. What is its mean speed?",
         "340 / 2.5 = 136, so it goes at 136 km/h on average.",
         "How long would it need for 1,020 km at that speed?",),
        ("A recipe for 4 people needs 250 g of rice and 0.6 l of stock. How much is that for 10?",
         "Ten people are 2.5 times as many: 625 g of rice and 1.5 l of stock.",
         "And for 3 people?",),
    ),
    (
        ("Sort this table by price, the cheapest first.\n\n| item | price |\n|---|---|\n| lamp | 49.90 |\n"
         "| chair | 129.00 |\n| cup | 6.50 |\n| rug | 84.25 |",),
        ("Which month was best?\n\nmonth,units,revenue\n2023-01,120,1440.00\n2023-02,98,1176.00\n"
         "2023-03,143,1716.00\n2023-04,131,1572.00",),
    ),
    (
        ('Give me the name and the age as JSON: "Hello, I am Ines, I turned 34 last week."',
         '{"name": "Ines", "age": 34}',
         'Now for: "My grandfather Otto is ninety."',),
        ('Reply with JSON only, keys "city" and "country": the capital of Norway.',
         '{"city": "Oslo", "country": "Norway"}',
         "The capital of Kenya?",),
    ),
    (
        ("SELECT name, COUNT(*) FROM visits JOIN guests ON guests.id = visits.guest GROUP BY name HAVING "
         "COUNT(*) > 3; Explain each clause in a line.",),
        ("How do I find all files above 100 MB below /var and list them by size in a shell?",
         "find /var -type f -size +100M -printf '%s %p\\n' | sort -nr | head",
         "What does -printf do here?",),
    ),
    (
        ("Who wrote the letter, and how do they feel?\n\nDear all, after ten years I am leaving the choir. "
         "It was never the music; it is the stairs. Please keep my chair by the window. Yours, M.",),
        ("Summarise: The council met on Friday. It agreed to plant forty trees along the river, to close the "
         "old bridge for lorries, and to ask the schools what they need before the winter.",),
    ),
    (
        ("Name five animals that live in the sea, then five that can fly.",
         "In the sea: whale, octopus, seal, shark, crab. In the air: owl, bat, bee, swan, gull.",
         "Which of these are mammals?",),
        ("List the planets from the sun outwards.",
         "Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune.",
         "Which one has the shortest year?",),
    ),
    (
        ("If all the blue boxes are heavy and this box is light, can it be blue? Think step by step.",
         "Every blue box is heavy. This box is light, so it is not heavy. If it were blue it would be heavy. "
         "Hence it cannot be blue.",
         "And if only most blue boxes are heavy?",),
        ("Anna is older than Ben, and Ben is older than Carl. Who is the youngest? Think step by step.",
         "Anna is older than Ben, Ben is older than Carl. So Carl is younger than both of them: Carl.",
         "Dora is younger than Ben. Can we tell whether she is younger than Carl?",),
    ),
    (
        ("What do you like better, red or blue? Say one word.", "Blue.", "And green or yellow?"),
        ("What colour is the sky on a clear day?", "Blue.", "And at sunset?"),
    ),
)  # fmt: skip

ABOUT_IMAGES: tuple[Turns, ...] = (
    # about the picture, an answer, and what is asked after that
    ("Describe this picture.", "It shows a few simple shapes on a plain ground.", "What is in the middle?"),
    ("What do you see here?", "I see areas of colour next to each other.", "Name the darkest one."),
    ("What is written in this picture?", "There are some words and numbers on it.", "Read the first line."),
    ("How many shapes are there?", "There are several.", "Is one of them a circle?"),
    ("Which colours are used?", "I see red, green, blue and yellow.", "Where is the red?"),
    ("Is this a photo or a drawing?", "It is a drawing with soft edges.", "What could it show?"),
    ("What does this chart say?", "Its bars have different heights.", "Which bar is the highest?"),
    ("Is anything in the top left corner?", "Yes, there is something.", "And in the bottom right corner?"),
)

HELD_OUT: tuple[Turns, ...] = (
    ("Write two sentences about a gardener who finds an old key under a rose bush.",),
    ("Übersetze ins Englische: Der Zug nach Bremen hat zwanzig Minuten Verspätung.",
     "The train to Bremen is twenty minutes late.",
     "Und was heißt das auf Spanisch?",),
    ("def mean(numbers):\n    return sum(numbers) / len(numbers)\n\nWhat goes wrong with an empty list?",
     "len(numbers) is 0, so the division raises ZeroDivisionError.",
     "Show me a version that returns None instead.",),
    ("12 pencils cost 7.80. What do 5 cost?", "One costs 0.65, so five cost 3.25.", "And 30?"),
    ("为什么海水是咸的?请简单解释。",),
)  # fmt: skip

IMAGE_HELD_OUT: tuple[Turns, ...] = (
    ("What is this?", "A drawing.", "What stands out in it?"),
    ("Tell me about the picture in one sentence.",),
    ("Which part is the brightest?", "It is near the edge.", "And which is the darkest?"),
)

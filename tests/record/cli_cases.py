"""What the command line is asked: a row for each case, in the order in which they are asked."""

from dataclasses import dataclass
from typing import Literal

from tests.record.workspace import script

Shown = Literal["text", "json", "keys"]


@dataclass(frozen=True)
class Command:
    """One command; ``file``: one it writes, as JSON; ``shown``: how its stdout stands in the record."""

    name: str
    arguments: tuple[str, ...]
    stdin: bytes | str = b""  # a text names a file
    script: str | None = None  # what the scripted backend plays, which then answers
    shown: Shown = "text"
    file: str | None = None
    model: str | None = "scenes"


TEXT = "What can you do?"
LOOK = "Which colours do you see?"
QUADRANTS = ("-i", "quadrants.png")
SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
PLAYED = script()


def _ask(*arguments: str) -> tuple[str, ...]:
    return ("generate", *arguments)


ANSWERED = (
    Command("a text, by a model that nobody chose", _ask(TEXT), model=None),
    Command("a text", _ask("-m", "scenes", TEXT)),
    Command("an image", _ask(*QUADRANTS, LOOK)),
    Command("two images", _ask(*QUADRANTS, "-i", "shapes.png", LOOK)),
    Command("the prompt from stdin", _ask(), TEXT.encode()),
    Command("the prompt from stdin, by its sign", _ask("-"), TEXT.encode()),
    Command("the image from stdin", _ask("-i", "-", LOOK), "quadrants.png"),
    Command("a system prompt", _ask("-s", "Be short.", TEXT)),
    Command("held back", _ask("--no-stream", TEXT)),
    Command("cut after two tokens", _ask("-n", "2", TEXT)),
    Command("stopped before a text", _ask("--stop", " shapes", TEXT)),
    Command("as JSON", _ask("--json", TEXT), shown="json"),
    Command("an image as JSON", _ask("--json", *QUADRANTS, LOOK), shown="json"),
    Command("an image made smaller", _ask("--json", "--max-pixels", "9216", *QUADRANTS, LOOK), shown="json"),
    Command("usage and reason", _ask("--usage", "--explain", TEXT)),
    Command("usage and reason of an image", _ask("--usage", "--explain", *QUADRANTS, LOOK)),
    Command("log probabilities, their form", _ask("--json", "--logprobs", "2", TEXT), shown="keys"),
    Command("by onnx", _ask("--backend", "onnx", "--explain", TEXT)),
    Command("by a policy of preference", _ask("--policy", "prefer:onnx,genai", "--explain", TEXT)),
    Command("JSON of a schema in a file", _ask("-j", "schema.json", *QUADRANTS, LOOK)),
    Command("JSON of a schema", _ask("-j", SCHEMA, "?"), script=script('{"n": 12}')),
    Command("log probabilities", _ask("--json", "--logprobs", "1", "?"), script=PLAYED, shown="json"),
    Command("usage of a script", _ask("--usage", "--explain", *QUADRANTS, "?"), script=PLAYED),
)

REFUSED = (
    ("a misspelt option", "--tempp", "1", "?"),
    ("an option without its value", "?", "-n"),
    ("a number that is none", "--top-k", "many", "?"),
    ("a temperature out of range", "--temp", "3", "?"),
    ("a top_p out of range", "--top-p", "1.5", "?"),
    ("a filter at temperature 0", "--top-p", "0.9", "?"),
    ("an unknown preset", "--preset", "wild", "?"),
    ("two options that exclude each other", "--greedy", "--temp", "1", "?"),
    ("a bias without a number", "--logit-bias", "42", "?"),
    ("a bias of no token", "--logit-bias", "99999999=1", "?"),
    ("log probabilities without JSON", "--logprobs", "2", "?"),
    ("more alternatives than there are", "--json", "--logprobs", "99", "?"),
    ("an unknown backend", "--backend", "gpu", "?"),
    ("an unknown policy", "--policy", "wild", "?"),
    ("an image for a backend of texts", "--backend", "genai", *QUADRANTS, "?"),
    ("a schema that is none", "-j", '{"type": "colour"}', "?"),
    ("a schema that is missing", "-j", "missing.json", "?"),
    ("prompt and image on stdin", "-i", "-", "-"),
    ("a prompt too many", "?", "?"),
    ("no memory", "--memory", "0", "?"),
    ("a missing image", "-i", "missing.png", "?"),
    ("a folder for an image", "-i", "empty", "?"),
    ("a damaged image", "-i", "damaged.png", "?"),
    ("a text for an image", "-i", "text.png", "?"),
    ("an image above the limit", "--max-image-pixels", "100", *QUADRANTS, "?"),
    ("nine images", *QUADRANTS * 9, "?"),
    ("more tokens than the context has", "-n", "100000", "?"),
    ("a prompt that is too long", "word " * 5000),
    ("a prompt that is not UTF-8", "caf\udce9"),
    ("a missing model", "-m", "/no/such/folder", "?"),
    ("a model that is none", "-m", "./empty", "?"),
    ("a hub id without the hub", "-m", "no-such/model", "--offline", "?"),
    ("a model whose name is nonsense", "-m", "a b c", "?"),
)

FAILED = (
    Command("stdin that is not UTF-8", _ask(), b"caf\xe9"),
    Command("a backend without a script", _ask("--backend", "scripted", "?")),
    Command("a backend whose script is damaged", _ask("?"), script="{}"),
    Command("a backend that fails at once", _ask("?"), script=script(fault="raise")),
    Command("a backend that fails in mid-answer", _ask("?"), script=script(fault="raise", fault_at=5)),
    Command("a score that is no number", _ask("?"), script=script(fault="nan", fault_at=3)),
    Command("the time is over", _ask("--timeout", "2", "--no-stream", "?"), script=script(fault="hang")),
)

ROUTED = (
    Command("the route of a text", ("route", "--json", TEXT), shown="json"),
    Command("the route of an image", ("route", "--json", *QUADRANTS, LOOK), shown="json"),
    Command("the route by preference", ("route", "--json", "--policy", "prefer:torch", "?"), shown="json"),
    Command("the route with a script", ("route", "--json", "?"), script=PLAYED, shown="json"),
    Command("the route of nobody", ("route", "--backend", "gpu", "?")),
    Command("the route of an image to a backend of texts", ("route", "--backend", "genai", *QUADRANTS, "?")),
    Command("the route for people", ("route", TEXT)),
)

_QUICK = ("-r", "1", "-p", "16", "-n", "2", "--image-size", "64x64")

KEPT = (
    Command("a first export", ("export", "scenes", "out")),
    Command("a second export to the same place", ("export", "scenes", "out"), file="out/manifest.json"),
    Command("an export of nothing", ("export", "/no/such/folder", "out2")),
    Command("an export with a wrong block size", ("export", "scenes", "out2", "--block-size", "7")),
    Command("an export is asked", _ask("-m", "./out", "--explain", TEXT)),
    Command("an export is verified", ("verify", "./out")),
    Command("the export of a model is verified", ("verify", "scenes", "--json"), shown="keys"),
    Command(
        "the export of a model against torch",
        ("verify", "scenes", "--json", "--against", "torch", "--dtype", "fp32"),
        shown="keys",
    ),
    Command("a wish without its reason", ("verify", "scenes", "--checkpoint", "scenes")),
    Command("models", ("models", "list")),
    Command("models as JSON", ("models", "list", "--json"), shown="keys"),
    Command("a model", ("models", "show", "scenes")),
    Command("a model's folder", ("models", "path", "scenes")),
    Command("the folder of none", ("models", "path", "/no/such/folder")),
    Command("a model that may not be removed", ("models", "rm", "scenes")),
    Command("a pull of what is no id", ("models", "pull", "a b")),
    Command("the doctor", ("doctor", "--json"), shown="keys"),
    Command("the doctor without a trial", ("doctor", "--json", "--no-run"), shown="keys"),
    Command("the version", ("--version",)),
    Command("no such command", ("genrate", "?")),
    Command("serving others without a key", ("serve", "--host", "0.0.0.0")),
    Command("a key on the command line", ("serve", "--api-key", "k")),
    Command("a missing file of keys", ("serve", "--api-key-file", "missing")),
    Command("a wrong size to measure", ("bench", "--image-size", "wide")),
    Command("an unknown backend to measure", ("bench", "--backends", "gpu")),
    Command(
        "a measurement",
        ("bench", "--backends", "scripted", *_QUICK, "--no-roofline", "--no-record", "-o", "json"),
        script=PLAYED,
        shown="keys",
    ),
)

_COMMANDS = ("", "generate", "chat", "serve", "route", "bench", "export", "verify", "doctor", "models")
_OF_MODELS = ("list", "pull", "show", "path", "rm")
HELP = tuple(
    Command(f"help of hybrid {path}".strip(), (*path.split(), "--help"))
    for path in (*_COMMANDS, *(f"models {name}" for name in _OF_MODELS))
)

_LINES = """\
/help
/set
/set max_tokens=20
/set top_p=2
/set wild=1
/image quadrants.png
/image missing.png
/drop
/image quadrants.png
Which colours do you see?
/backend onnx
/backend gpu
//not a command
/wild
/stats
/save talk.json
/save talk.json
/save! talk.json
/clear
/load talk.json
/load text.png
/exit
"""

CHATS = (
    Command("a chat of commands", ("chat",), _LINES.encode(), file="talk.json"),
    Command("a chat as JSON", ("chat", "--json"), b"?\n", script=PLAYED, shown="json"),
    Command("a chat with usage", ("chat", "--usage", "--explain"), b"?\nand?\n", script=PLAYED),
    Command("a chat whose backend fails", ("chat",), b"?\n", script=script(fault="raise", fault_at=4)),
    Command("a chat that cannot begin", ("chat", "--temp", "3"), b"?\n"),
    Command("a chat with an image on stdin", ("chat", "-i", "-"), b"?\n"),
)

COMMANDS = (
    *ANSWERED,
    *(Command(name, _ask(*arguments)) for name, *arguments in REFUSED),
    *FAILED,
    *ROUTED,
    *CHATS,
    *KEPT,
    *HELP,
)

"""Lessons for the base model: to see and to read the embedded world, never to say a relation of the schema.

They are to the tiny model what pretraining is to the real backbone: captions, attributes, grounding, who is named, what is
said, plain facts. All lessons of one document share its picture and headline.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from random import Random

from PIL import Image

from more_r1.document import Box, Document, Entity, Object, Pair, Span
from more_r1.reasoning.prompt import Picture, Prompt, PromptForm, build_prompt
from more_r1.schema import Schema
from more_r1.synthetic import headlines
from more_r1.synthetic.drafts import Draft, make_split
from more_r1.synthetic.drawing import Corners, draw
from more_r1.synthetic.oracle import PHRASES, called, explain, identify, read, see, stand, standing
from more_r1.synthetic.story import Mention, Story
from more_r1.synthetic.world import BADGES, EVERYONE, PROPS, SCENES, Thing

TASK = "Answer the question\n"
# The whole picture and the crop in the tiny model's resolution: 16 and 4 tokens.
WHOLE_PIXELS, CROP_PIXELS = 112 * 112, 56 * 56
# Documents are drafted in blocks, so that any one of them can be had by its number.
_BLOCK = 64
Lesson = tuple[Prompt, str]


def lessons(seed: int, index: int, stage: str) -> list[Lesson]:
    """The lessons of document `index` of an endless world.

    Stages: `captions` (see), `reading` (read), `matching` (what is seen in what is read), `finding` (names in what is read, at
    length), `telling` (all of it at length). The long ones come under the instruction of the task, whose answers are long.
    """
    draft = _drafts(seed, index // _BLOCK)[index % _BLOCK]
    random = Random(f"{seed}/{stage}/{index}")
    if stage == "finding":
        return [_find(draft, random) for _ in range(2)]
    image, boxes = draw(draft.things, draft.story.scene, random)
    source = _encoded(image)
    head = (Picture(source, None, WHOLE_PIXELS), f"Headline: {' '.join(draft.story.tokens)}\n")

    def ask(question: str, answer: str, number: int | None = None) -> Lesson:
        own: tuple[Picture | str, ...] = (f"Question: {question}",)
        if number is not None:
            box = Box.from_pixels(*boxes[number], width=image.width, height=image.height)
            own = (Picture(source, box, CROP_PIXELS), *own)
        return Prompt(((TASK,), head, own)), answer

    found: list[Lesson] = []
    if stage == "telling":
        for number in random.sample(range(len(draft.things)), min(len(draft.things), 2)):
            asked = random.choice(draft.asked)
            box = Box.from_pixels(*boxes[number], width=image.width, height=image.height)
            own = (Picture(source, box, CROP_PIXELS), f"Entity: {' '.join(asked.words)}\nQuestion: What is seen and named ?")
            found.append((Prompt((_task(), head, own)), _tell(draft.things, draft.things[number], asked, draft.story, random)))
    for number, thing in enumerate(draft.things):
        if stage == "captions":
            found.append(ask("What is seen ?", f"{thing.describe()} . {known(thing)}", number))
        elif stage == "matching":
            found.append(ask("Is it named ?", f"{known(thing)} . {_link(thing, draft.story)}", number))
            if random.random() < 0.3:
                found.append(ask("What is seen ?", f"{thing.describe()} . {known(thing)}", number))
    if stage != "reading" or random.random() < 0.3:
        found.append(ask("What is the scene ?", f"a {draft.story.scene}"))
        number = random.randrange(len(draft.things))
        found.append(ask(f"Where is {draft.things[number].describe()} ?", _place(boxes[number], image.width)))
    found += [ask(*fact(random)) for _ in range(2)]
    if stage != "captions":
        found += [ask(question, answer) for question, answer in _read(draft.story, random)]
    return found


def known(thing: Thing) -> str:
    """Who or what it is, where that can be known."""
    return "Such a thing tells nothing" if thing.type == "misc" else identify(thing)


def _find(draft: Draft, random: Random) -> Lesson:
    """Who is named, then name upon name, each followed by whether and as what the headline has it, as in a trace.

    There is no picture: nothing of this is seen, and so many decisions are cheap. A tiny model needs some ten thousands of
    them before it compares names at all, rather than guess.
    """
    story, asked = draft.story, random.choice(draft.asked)
    names = [mention.name for mention in story.mentions]
    names = random.sample(names, min(len(names), 4)) + random.sample([name for name in EVERYONE if name not in names], 4)
    random.shuffle(names)
    found = " and ".join(f"{name} , {standing(story.mention(name), asked)}" for name in names)
    head, own = f"Headline: {' '.join(story.tokens)}\n", f"Entity: {' '.join(asked.words)}\nQuestion: Who is named ?"
    listed = " ; ".join(called(mention) for mention in story.mentions)
    return Prompt((_task(), (head,), (own,))), f"The headline names {listed} . {found} ."


def _tell(things: Sequence[Thing], thing: Thing, asked: Mention, story: Story, random: Random) -> str:
    """Everything at once: what is seen, who is named, where the two meet, and what the headline says of whom they meet in."""
    told = [see(things, thing, story, random)] if random.random() < 0.4 else []  # mostly mastered by then, and long
    told += [read(things, story, story.mentions, random)]
    told += [f"{known(thing)} ." if thing.type == "misc" else f"{stand(thing, asked, story)} ."]
    for sign in thing.signs if thing.type != "misc" else ():
        told += [
            f"It says that {f.a} {PHRASES[f.label]} {f.b} ." for f in story.facts if f.how == "said" and sign in (f.a, f.b)
        ]
        told += [f"It only sets {a} beside {b} ." for a, b in story.beside if sign in (a, b)]
        told += [f"{sign} play against {other} ." for other in story.opponents(sign)]
        told += [f"{player} plays for {club} ." for player, club in story.plays if sign in (player, club)]
    return " ".join(told)


def _link(thing: Thing, story: Story) -> str:
    if thing.type == "misc":
        return "None of this is named ."
    links = [m for m in (story.mention(sign) for sign in thing.signs) if m is not None]
    if not links:
        return "None of this is named ."
    return f"Of this {' ; '.join(called(m) for m in links)} is named ."


def _place(box: Corners, size: int) -> str:
    x = (box[0] + box[2]) / 2 / size
    return "left" if x < 1 / 3 else "right" if x > 2 / 3 else "middle"


def _read(story: Story, random: Random) -> list[tuple[str, str]]:
    """Questions on the headline alone. Whether a name is there, and under which, is the hard one: it is asked most."""
    asked = [("Who is named ?", " ; ".join(called(mention) for mention in story.mentions))]
    names = [mention.name for mention in story.mentions]
    absent = random.sample([name for name in EVERYONE if name not in names], 4)
    for name in random.sample(names, min(len(names), 4)) + absent:
        mention = story.mention(name)
        asked.append((f"Is {name} named ?", f"yes , as {' '.join(mention.words)}" if mention is not None else "no"))
    for a, b in story.versus[:1]:
        asked.append((f"Against whom do {a} play ?", b))
    for player, club in story.plays[:1]:
        asked.append((f"For whom does {player} play ?", club))
    for saying in [fact for fact in story.facts if fact.how == "said"][:2]:
        asked.append((f"What is said of {saying.a} ?", f"{saying.a} {PHRASES[saying.label]} {saying.b}"))
    for a, b in story.beside[:1]:
        asked.append((f"What is said of {a} ?", f"It only sets {a} beside {b}"))
    return asked


def fact(random: Random) -> tuple[str, str]:
    """A plain fact of the world: what someone is called, looks like, wears or belongs to."""
    someone = random.choice(list(EVERYONE.values()))
    options = [(f"Who is {someone.nickname} ?", someone.name), (f"How else is {someone.name} called ?", someone.nickname)]
    if someone.look:
        options.append((f"What is the look of {someone.name} ?", " ".join(someone.look)))
    if someone.kind == "club":
        options += [(f"Who is {someone.home} side ?", someone.name), (f"Whose kit is {someone.look[0]} ?", someone.name)]
    if someone.kind == "city":
        options.append((f"Where is {someone.name} ?", someone.home))
    return random.choice(options)


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word of the embedded world: names, headlines, questions, reasoning, tags and parts of labels."""
    texts = [TASK, "Is it named ? What is seen ? What is the scene ?"]
    texts += ["Headline: Entity: Question: mention of left right middle just yes no , ( ) 1 2 3 4 5 6 7 8 9 0 per org loc misc"]
    texts += [f"{r.name} {r.nickname} {r.home} {' '.join(r.look)}" for r in EVERYONE.values()]
    texts += [*SCENES, *PROPS, *BADGES, *headlines.words(), *PHRASES.values()]
    schema, form = Schema.more(), PromptForm(wording="short", whole_pixels=WHOLE_PIXELS, crop_pixels=CROP_PIXELS)
    for index in range(4 * _BLOCK):
        draft = _drafts(0, index // _BLOCK)[index % _BLOCK]
        random = Random(index)
        texts += [part for _ in range(2) for lesson in _read(draft.story, random) for part in lesson]
        texts += [part for _ in range(4) for part in fact(random)]
        texts += [f"{known(t)} . {_link(t, draft.story)}" for t in draft.things]
        texts += [explain(draft.things, t, m, draft.story, random).render() for t in draft.things for m in draft.asked]
    for reasoning in ("steps", "none"):
        prompt = _example(form.model_copy(update={"reasoning": reasoning}), schema)
        texts += [part for segment in prompt.segments for part in segment if isinstance(part, str)]
    return tuple(sorted({piece for text in texts for piece in _pieces(text)}))


def _pieces(text: str) -> list[str]:
    """A text as the tiny tokenizer splits it: tags, parts of labels, words, single marks."""
    return re.findall(r"</?[a-z]+>|/[a-z_]+|[A-Za-z0-9_]+|[^\sA-Za-z0-9_]", text)


@cache
def _task() -> tuple[Picture | str, ...]:
    form = PromptForm(wording="short", whole_pixels=WHOLE_PIXELS, crop_pixels=CROP_PIXELS)
    return _example(form, Schema.more()).segments[0]


def _example(form: PromptForm, schema: Schema) -> Prompt:
    document = Document(
        id="example",
        image=_encoded(Image.new("RGB", (56, 56))),
        tokens=("Gulls",),
        objects=(Object(id="o", box=Box(cx=0.5, cy=0.5, w=1, h=1)),),
        entities=(Entity(id="e", span=Span(start=0, end=1)),),
        pairs=(Pair(object="o", entity="e"),),
    )
    return build_prompt(document, document.pairs[0], schema, form)


@lru_cache(maxsize=8)
def _drafts(seed: int, block: int) -> Sequence[Draft]:
    return list(make_split(_BLOCK, Random(f"{seed}/{block}").getrandbits(32)))


def _encoded(image: Image.Image) -> bytes:
    with io.BytesIO() as file:
        image.save(file, format="PNG", compress_level=1)
        return file.getvalue()

"""Drawing: a scene above, one to eight things below it, with background, occlusion and blur.

Pictures are 224 x 224 pixels, drawn at twice the size and scaled down. Colours and shapes are what the world's names look
like; a thing's crop shows the thing, only the whole picture shows the scene.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from PIL import Image, ImageDraw, ImageFilter

from more_r1.synthetic.world import COLOURS, EVERYONE, Thing

SIZE = 224
_SCALE = 2
_SKIES = ((206, 222, 236), (226, 214, 198), (198, 214, 200), (222, 206, 222), (188, 200, 214))
_GROUNDS = ((164, 158, 140), (140, 160, 132), (150, 146, 160), (176, 164, 150))
_SKINS = ((246, 212, 182), (206, 156, 116), (140, 96, 66))
_INK = (40, 40, 46)

Corners = tuple[int, int, int, int]
Canvas = ImageDraw.ImageDraw


def draw(things: Sequence[Thing], scene: str, random: Random) -> tuple[Image.Image, list[Corners]]:
    """Draw things under a scene: the picture, and for each thing its box as left, top, right, bottom in pixels."""
    image = Image.new("RGB", (SIZE * _SCALE, SIZE * _SCALE), _jitter(random.choice(_SKIES), random))
    canvas = ImageDraw.Draw(image)
    horizon = random.randint(84, 98) * _SCALE
    canvas.rectangle((0, horizon, image.width, image.height), fill=_jitter(random.choice(_GROUNDS), random))
    for _ in range(3):
        x, height = random.randint(0, SIZE) * _SCALE, random.randint(6, 22) * _SCALE
        canvas.rectangle((x, horizon - height, x + 30 * _SCALE, horizon), fill=_jitter((182, 186, 190), random))
    side = random.randint(70, 84)
    left, top = random.randint(4, SIZE - side - 4), random.randint(4, 12)
    _SCENES[scene](canvas, _Frame(left, top, side))
    boxes = _places(len(things), random)
    blurred = []
    for thing, box in sorted(zip(things, boxes, strict=True), key=lambda pair: pair[1][3]):
        frame = _Frame(box[0], box[1], box[2] - box[0])
        _thing(canvas, frame, thing, random)
        if thing.blurred:
            blurred.append(box)
        elif random.random() < 0.08:
            _post(canvas, frame, random)
    small = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    for box in blurred:
        small.paste(small.crop(box).filter(ImageFilter.GaussianBlur(9)), box)
    if random.random() < 0.25:
        small = small.filter(ImageFilter.GaussianBlur(random.uniform(0.4, 0.9)))
    return small, boxes


def _places(count: int, random: Random) -> list[Corners]:
    """Square boxes of 50 to 58 pixels in one or two rows below the scene; neighbours may cover each other's edge."""
    rows = [count] if count <= 4 else [count // 2, count - count // 2]
    boxes = []
    for row, columns in enumerate(rows):
        for column in range(columns):
            side = random.randint(50, 58)
            width = SIZE / columns
            slack = max(width - side, 0)
            left = column * width + slack / 2 + random.uniform(-0.4, 0.4) * max(slack, 6)
            top = (104 if len(rows) == 2 else 120) + row * 58 + random.uniform(-3, 3) * (1 if len(rows) == 2 else 4)
            x, y = min(max(round(left), 0), SIZE - side), min(max(round(top), 0), SIZE - side)
            boxes.append((x, y, x + side, y + side))
    random.shuffle(boxes)
    return boxes


def _jitter(colour: tuple[int, int, int], random: Random, by: int = 10) -> tuple[int, int, int]:
    red, green, blue = (min(max(value + random.randint(-by, by), 0), 255) for value in colour)
    return red, green, blue


class _Frame:
    """A square to draw in: points are fractions of it."""

    def __init__(self, left: float, top: float, side: float) -> None:
        self.left, self.top, self.side = left, top, side

    def __call__(self, *fractions: float) -> list[float]:
        """x, y, x, y ... as fractions -> pixels of the large canvas."""
        return [
            (self.top if index % 2 else self.left) * _SCALE + value * self.side * _SCALE
            for index, value in enumerate(fractions)
        ]

    def width(self, fraction: float) -> int:
        return max(round(fraction * self.side * _SCALE), 1)


def _thing(canvas: Canvas, at: _Frame, thing: Thing, random: Random) -> None:
    if thing.kind == "person":
        _person(canvas, at, thing, random)
    elif thing.kind == "club":
        _crest(canvas, at, thing)
    elif thing.kind == "brand":
        _sign(canvas, at, thing)
    elif thing.kind == "city":
        _landmark(canvas, at, thing)
    else:
        _PROPS[thing.who](canvas, at)


def _person(canvas: Canvas, at: _Frame, thing: Thing, random: Random) -> None:
    hair, style = EVERYONE[thing.who].look
    colour = COLOURS[hair]
    skin = random.choice(_SKINS)
    cloth = COLOURS[EVERYONE[thing.kit].look[0] if thing.kit else thing.clothes]
    if style == "long":
        canvas.rounded_rectangle(at(0.24, 0.1, 0.76, 0.7), at.width(0.16), fill=colour)
    if style == "bun":
        canvas.ellipse(at(0.38, 0.0, 0.62, 0.2), fill=colour)
    canvas.rounded_rectangle(at(0.1, 0.56, 0.9, 1.2), at.width(0.2), fill=cloth, outline=_INK, width=at.width(0.012))
    if thing.kit:
        for x in (0.3, 0.64):
            canvas.rectangle(at(x, 0.6, x + 0.06, 1.0), fill="white")
    canvas.rectangle(at(0.43, 0.48, 0.57, 0.6), fill=skin)
    canvas.ellipse(at(0.3, 0.12, 0.7, 0.56), fill=skin)
    if style == "curls":
        for x, y in (
            (0.28, 0.28),
            (0.32, 0.16),
            (0.44, 0.09),
            (0.57, 0.09),
            (0.68, 0.16),
            (0.72, 0.28),
            (0.26, 0.4),
            (0.74, 0.4),
        ):
            canvas.ellipse(at(x - 0.1, y - 0.08, x + 0.1, y + 0.12), fill=colour)
    else:
        canvas.pieslice(at(0.28, 0.07, 0.72, 0.5), 180, 360, fill=colour)
    for x in (0.42, 0.58):
        canvas.ellipse(at(x - 0.025, 0.33, x + 0.025, 0.38), fill=_INK)
    canvas.arc(at(0.42, 0.36, 0.58, 0.48), 20, 160, fill=_INK, width=at.width(0.02))
    if thing.badge is not None:
        _badge(canvas, at, *thing.badge)


def _badge(canvas: Canvas, at: _Frame, kind: str, of: str) -> None:
    if kind == "armband":
        canvas.rectangle(at(0.1, 0.74, 0.3, 0.88), fill="white", outline=_INK, width=at.width(0.03))
        return
    colours = [COLOURS[name] for name in EVERYONE[of].look]
    if kind == "rosette":
        canvas.polygon(at(0.6, 0.8, 0.54, 1.0, 0.66, 0.94, 0.78, 1.0, 0.72, 0.8), fill=colours[0], outline="white")
        canvas.ellipse(at(0.52, 0.62, 0.8, 0.88), fill=colours[0], outline="white", width=at.width(0.03))
        canvas.ellipse(at(0.61, 0.71, 0.71, 0.8), fill="white")
    elif kind == "ribbon":
        canvas.line(at(0.36, 0.57, 0.5, 0.78, 0.64, 0.57), fill=_INK, width=at.width(0.05))
        canvas.ellipse(at(0.35, 0.7, 0.65, 0.99), fill=colours[0], outline=_INK, width=at.width(0.03))
    elif kind == "patch":
        canvas.rectangle(at(0.54, 0.66, 0.86, 0.78), fill=colours[0])
        canvas.rectangle(at(0.54, 0.78, 0.86, 0.9), fill=colours[1])
        canvas.rectangle(at(0.54, 0.66, 0.86, 0.9), outline="white", width=at.width(0.02))
    else:
        canvas.polygon(at(0.12, 0.62, 0.26, 0.57, 0.84, 1.0, 0.62, 1.0), fill=colours[0])
        canvas.polygon(at(0.26, 0.57, 0.4, 0.56, 0.9, 0.9, 0.9, 1.0, 0.84, 1.0), fill=colours[1])


def _star(cx: float, cy: float, outer: float, inner: float, points: int = 5) -> list[float]:
    found = []
    for index in range(2 * points):
        radius, angle = (inner if index % 2 else outer), math.pi * index / points - math.pi / 2
        found += [cx + radius * math.cos(angle), cy + radius * math.sin(angle)]
    return found


def _crest(canvas: Canvas, at: _Frame, thing: Thing) -> None:
    colour, shape = COLOURS[EVERYONE[thing.who].look[0]], EVERYONE[thing.who].look[1]
    shield = at(0.08, 0.06, 0.92, 0.06, 0.92, 0.56, 0.5, 0.98, 0.08, 0.56)
    canvas.polygon(shield, fill="white", outline=_INK, width=at.width(0.04))
    if shape == "star":
        canvas.polygon(at(*_star(0.5, 0.46, 0.32, 0.14)), fill=colour)
    elif shape == "cross":
        canvas.rectangle(at(0.42, 0.14, 0.58, 0.8), fill=colour)
        canvas.rectangle(at(0.2, 0.34, 0.8, 0.5), fill=colour)
    elif shape == "diamond":
        canvas.polygon(at(0.5, 0.12, 0.76, 0.46, 0.5, 0.8, 0.24, 0.46), fill=colour)
    elif shape == "triangle":
        canvas.polygon(at(0.5, 0.14, 0.8, 0.68, 0.2, 0.68), fill=colour)
    elif shape == "crescent":
        canvas.ellipse(at(0.22, 0.16, 0.76, 0.72), fill=colour)
        canvas.ellipse(at(0.38, 0.14, 0.88, 0.64), fill="white")
    elif shape == "arrow":
        canvas.polygon(at(0.5, 0.12, 0.78, 0.44, 0.6, 0.44, 0.6, 0.8, 0.4, 0.8, 0.4, 0.44, 0.22, 0.44), fill=colour)
    elif shape == "heart":
        canvas.ellipse(at(0.22, 0.18, 0.52, 0.5), fill=colour)
        canvas.ellipse(at(0.48, 0.18, 0.78, 0.5), fill=colour)
        canvas.polygon(at(0.24, 0.42, 0.76, 0.42, 0.5, 0.8), fill=colour)
    else:
        canvas.ellipse(at(0.24, 0.18, 0.76, 0.7), fill=colour)
        canvas.ellipse(at(0.4, 0.34, 0.6, 0.54), fill="white")


def _sign(canvas: Canvas, at: _Frame, thing: Thing) -> None:
    ring = COLOURS[EVERYONE[thing.ring].look[0]] if thing.ring else COLOURS["grey"]
    canvas.rectangle(at(0.02, 0.02, 0.98, 0.98), fill=(250, 250, 250), outline=_INK, width=at.width(0.03))
    canvas.ellipse(at(0.06, 0.06, 0.94, 0.94), outline=ring, width=at.width(0.12))
    shape = EVERYONE[thing.who].look[0]
    if shape == "bolt":
        canvas.polygon(at(0.56, 0.22, 0.32, 0.54, 0.48, 0.54, 0.42, 0.8, 0.68, 0.44, 0.52, 0.44), fill=_INK)
    elif shape == "bars":
        for x, top in ((0.3, 0.56), (0.45, 0.42), (0.6, 0.28)):
            canvas.rectangle(at(x, top, x + 0.1, 0.74), fill=_INK)
    elif shape == "hexagon":
        canvas.polygon(at(*_star(0.5, 0.5, 0.26, 0.225, 3)), outline=_INK, width=at.width(0.08))
    elif shape == "checker":
        for x, y in ((0.3, 0.3), (0.5, 0.5)):
            canvas.rectangle(at(x, y, x + 0.2, y + 0.2), fill=_INK)
        canvas.rectangle(at(0.3, 0.3, 0.7, 0.7), outline=_INK, width=at.width(0.03))
    elif shape == "hourglass":
        canvas.polygon(at(0.3, 0.26, 0.7, 0.26, 0.3, 0.74, 0.7, 0.74), fill=_INK)
    elif shape == "chevron":
        for y in (0.3, 0.5):
            canvas.line(at(0.28, y + 0.18, 0.5, y, 0.72, y + 0.18), fill=_INK, width=at.width(0.09))
    elif shape == "square":
        canvas.rectangle(at(0.32, 0.32, 0.68, 0.68), fill=_INK)
    else:
        for x, y in ((0.36, 0.36), (0.64, 0.36), (0.36, 0.64), (0.64, 0.64)):
            canvas.ellipse(at(x - 0.09, y - 0.09, x + 0.09, y + 0.09), fill=_INK)


def _landmark(canvas: Canvas, at: _Frame, thing: Thing) -> None:
    canvas.rectangle(at(0.0, 0.0, 1.0, 1.0), fill=(150, 200, 240))
    canvas.rectangle(at(0.0, 0.84, 1.0, 1.0), fill=(110, 150, 90))
    stone, dark = (196, 170, 130), (120, 96, 70)
    shape = EVERYONE[thing.who].look[0]
    if shape == "tower":
        canvas.polygon(at(0.36, 0.9, 0.44, 0.12, 0.56, 0.12, 0.64, 0.9), fill=stone, outline=dark)
        canvas.polygon(at(0.4, 0.14, 0.5, 0.0, 0.6, 0.14), fill=dark)
    elif shape == "arch":
        canvas.rectangle(at(0.16, 0.3, 0.84, 0.9), fill=stone, outline=dark)
        canvas.pieslice(at(0.32, 0.44, 0.68, 0.9), 180, 360, fill=(70, 80, 100))
        canvas.rectangle(at(0.32, 0.66, 0.68, 0.9), fill=(70, 80, 100))
    elif shape == "dome":
        canvas.rectangle(at(0.2, 0.58, 0.8, 0.9), fill=(240, 240, 236), outline=dark)
        canvas.pieslice(at(0.22, 0.24, 0.78, 0.9), 180, 360, fill=(222, 172, 40), outline=dark)
    elif shape == "mill":
        canvas.polygon(at(0.38, 0.9, 0.44, 0.42, 0.56, 0.42, 0.62, 0.9), fill=(236, 226, 206), outline=dark)
        for angle in (45, 135, 225, 315):
            x, y = 0.36 * math.cos(math.radians(angle)), 0.36 * math.sin(math.radians(angle))
            canvas.line(at(0.5, 0.46, 0.5 + x, 0.46 + y), fill=(90, 50, 30), width=at.width(0.07))
    elif shape == "pyramid":
        canvas.polygon(at(0.06, 0.9, 0.5, 0.2, 0.94, 0.9), fill=(230, 200, 120), outline=dark)
        canvas.polygon(at(0.5, 0.2, 0.94, 0.9, 0.6, 0.9), fill=(190, 156, 84))
    elif shape == "lighthouse":
        for index, colour in enumerate(("white", (200, 40, 40), "white", (200, 40, 40))):
            canvas.rectangle(at(0.4, 0.26 + index * 0.16, 0.6, 0.42 + index * 0.16), fill=colour)
        canvas.rectangle(at(0.36, 0.14, 0.64, 0.26), fill=(250, 230, 90), outline=dark)
    elif shape == "bridge":
        canvas.rectangle(at(0.0, 0.62, 1.0, 0.7), fill=(170, 60, 50))
        for x in (0.26, 0.7):
            canvas.rectangle(at(x, 0.26, x + 0.07, 0.94), fill=(170, 60, 50))
        canvas.arc(at(0.28, 0.0, 0.74, 0.62), 0, 180, fill=(170, 60, 50), width=at.width(0.03))
    else:
        canvas.ellipse(at(0.18, 0.16, 0.82, 0.8), outline=(80, 60, 140), width=at.width(0.06))
        for angle in range(0, 180, 45):
            x, y = 0.32 * math.cos(math.radians(angle)), 0.32 * math.sin(math.radians(angle))
            canvas.line(at(0.5 - x, 0.48 - y, 0.5 + x, 0.48 + y), fill=(80, 60, 140), width=at.width(0.03))
    top, bottom = (COLOURS[name] for name in EVERYONE[EVERYONE[thing.who].home].look)
    canvas.rectangle(at(0.66, 0.04, 0.98, 0.15), fill=top)
    canvas.rectangle(at(0.66, 0.15, 0.98, 0.26), fill=bottom)
    canvas.line(at(0.66, 0.02, 0.66, 0.4), fill=_INK, width=at.width(0.025))


def _post(canvas: Canvas, at: _Frame, random: Random) -> None:
    """Something thin that stands before the thing."""
    x = random.choice((0.0, 0.9))
    canvas.rectangle(at(x, 0.3, x + 0.09, 1.05), fill=(96, 92, 88))


def _ball(canvas: Canvas, at: _Frame) -> None:
    canvas.ellipse(at(0.14, 0.14, 0.86, 0.86), fill="white", outline=_INK, width=at.width(0.03))
    canvas.polygon(at(*_star(0.5, 0.5, 0.16, 0.13)), fill=_INK)


def _car(canvas: Canvas, at: _Frame) -> None:
    canvas.polygon(at(0.2, 0.5, 0.34, 0.28, 0.68, 0.28, 0.82, 0.5), fill=(160, 190, 210), outline=_INK)
    canvas.rectangle(at(0.04, 0.5, 0.96, 0.74), fill=(90, 100, 120), outline=_INK)
    for x in (0.26, 0.74):
        canvas.ellipse(at(x - 0.12, 0.62, x + 0.12, 0.86), fill=_INK)


def _tree(canvas: Canvas, at: _Frame) -> None:
    canvas.rectangle(at(0.44, 0.6, 0.56, 1.0), fill=(110, 76, 46))
    canvas.ellipse(at(0.14, 0.04, 0.86, 0.7), fill=(60, 130, 70))


def _umbrella(canvas: Canvas, at: _Frame) -> None:
    canvas.pieslice(at(0.06, 0.12, 0.94, 0.96), 180, 360, fill=(70, 80, 150), outline=_INK)
    canvas.line(at(0.5, 0.5, 0.5, 0.94), fill=_INK, width=at.width(0.04))


def _chair(canvas: Canvas, at: _Frame) -> None:
    for box in ((0.24, 0.06, 0.36, 0.98), (0.24, 0.5, 0.78, 0.62), (0.66, 0.5, 0.78, 0.98), (0.24, 0.14, 0.36, 0.5)):
        canvas.rectangle(at(*box), fill=(120, 80, 50))


def _lamp(canvas: Canvas, at: _Frame) -> None:
    canvas.polygon(at(0.3, 0.06, 0.7, 0.06, 0.86, 0.42, 0.14, 0.42), fill=(250, 236, 150), outline=_INK)
    canvas.rectangle(at(0.47, 0.42, 0.53, 0.9), fill=_INK)
    canvas.rectangle(at(0.3, 0.88, 0.7, 0.96), fill=_INK)


_PROPS = {"ball": _ball, "car": _car, "tree": _tree, "umbrella": _umbrella, "chair": _chair, "lamp": _lamp}


def _goal(canvas: Canvas, at: _Frame) -> None:
    for x in [index / 8 for index in range(1, 8)]:
        canvas.line(at(x, 0.1, x, 0.95), fill=(250, 250, 250), width=at.width(0.012))
    for y in (0.25, 0.42, 0.6, 0.78):
        canvas.line(at(0.02, y, 0.98, y), fill=(250, 250, 250), width=at.width(0.012))
    canvas.line(at(0.03, 0.97, 0.03, 0.08, 0.97, 0.08, 0.97, 0.97), fill="white", width=at.width(0.07))


def _microphone(canvas: Canvas, at: _Frame) -> None:
    canvas.ellipse(at(0.34, 0.02, 0.66, 0.36), fill=(70, 70, 80))
    canvas.rectangle(at(0.38, 0.36, 0.62, 0.44), fill=(200, 60, 60))
    canvas.rectangle(at(0.46, 0.44, 0.54, 0.9), fill=(70, 70, 80))
    canvas.rectangle(at(0.26, 0.88, 0.74, 0.97), fill=(70, 70, 80))


def _hearth(canvas: Canvas, at: _Frame) -> None:
    canvas.rectangle(at(0.04, 0.06, 0.96, 0.97), fill=(150, 70, 50))
    canvas.rectangle(at(0.0, 0.02, 1.0, 0.14), fill=(90, 40, 30))
    canvas.rectangle(at(0.22, 0.36, 0.78, 0.97), fill=(30, 20, 20))
    canvas.polygon(at(0.3, 0.95, 0.4, 0.6, 0.48, 0.76, 0.56, 0.48, 0.7, 0.95), fill=(250, 150, 30))


def _cradle(canvas: Canvas, at: _Frame) -> None:
    canvas.polygon(at(0.06, 0.4, 0.94, 0.4, 0.8, 0.8, 0.2, 0.8), fill=(250, 190, 210), outline=_INK, width=at.width(0.03))
    canvas.pieslice(at(0.5, 0.06, 0.98, 0.74), 180, 360, fill=(170, 220, 250), outline=_INK)
    canvas.arc(at(0.1, 0.5, 0.9, 1.0), 20, 160, fill=(110, 70, 40), width=at.width(0.06))


def _lectern(canvas: Canvas, at: _Frame) -> None:
    canvas.polygon(at(0.1, 0.16, 0.9, 0.16, 0.78, 0.36, 0.22, 0.36), fill=(120, 76, 40))
    canvas.polygon(at(0.26, 0.36, 0.74, 0.36, 0.68, 0.96, 0.32, 0.96), fill=(146, 96, 54))
    canvas.ellipse(at(0.38, 0.46, 0.62, 0.7), fill=(230, 190, 60), outline=_INK)


def _chimney(canvas: Canvas, at: _Frame) -> None:
    canvas.polygon(at(0.04, 0.97, 0.04, 0.6, 0.28, 0.46, 0.28, 0.6, 0.52, 0.46, 0.52, 0.97), fill=(120, 120, 130))
    canvas.rectangle(at(0.6, 0.2, 0.78, 0.97), fill=(150, 80, 70))
    for x, y, r in ((0.72, 0.12, 0.1), (0.84, 0.06, 0.08), (0.92, 0.02, 0.06)):
        canvas.ellipse(at(x - r, y - r, x + r, y + r), fill=(236, 236, 236))


def _podium(canvas: Canvas, at: _Frame) -> None:
    for x, top, colour in ((0.02, 0.56, (190, 196, 204)), (0.34, 0.36, (226, 180, 50)), (0.66, 0.68, (170, 110, 60))):
        canvas.rectangle(at(x, top, x + 0.32, 0.97), fill=colour, outline=_INK, width=at.width(0.02))
    canvas.polygon(at(*_star(0.5, 0.18, 0.16, 0.07)), fill=(226, 180, 50))


def _ballot(canvas: Canvas, at: _Frame) -> None:
    canvas.polygon(at(0.34, 0.02, 0.66, 0.02, 0.66, 0.5, 0.34, 0.5), fill="white", outline=_INK, width=at.width(0.02))
    canvas.line(at(0.4, 0.18, 0.48, 0.28, 0.6, 0.1), fill=(40, 140, 60), width=at.width(0.05))
    canvas.rectangle(at(0.1, 0.42, 0.9, 0.97), fill=(60, 90, 160), outline=_INK, width=at.width(0.02))
    canvas.rectangle(at(0.28, 0.46, 0.72, 0.52), fill=_INK)


def _globe(canvas: Canvas, at: _Frame) -> None:
    canvas.ellipse(at(0.14, 0.04, 0.86, 0.76), fill=(70, 140, 220), outline=_INK, width=at.width(0.02))
    canvas.ellipse(at(0.24, 0.16, 0.54, 0.44), fill=(80, 170, 90))
    canvas.ellipse(at(0.5, 0.4, 0.78, 0.64), fill=(80, 170, 90))
    canvas.rectangle(at(0.46, 0.76, 0.54, 0.9), fill=(110, 76, 46))
    canvas.rectangle(at(0.26, 0.88, 0.74, 0.97), fill=(110, 76, 46))


_SCENES = {
    "goal": _goal, "microphone": _microphone, "hearth": _hearth, "cradle": _cradle, "lectern": _lectern,
    "chimney": _chimney, "podium": _podium, "ballot": _ballot, "globe": _globe,
}  # fmt: skip

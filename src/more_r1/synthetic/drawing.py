"""Drawing: a scene above, one to eight things below it, with background, occlusion and blur.

Pictures are 224 x 224 pixels, drawn at twice the size and scaled down. A thing's crop shows the thing, only the whole
picture shows the scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from PIL import Image, ImageDraw, ImageFilter

from more_r1.synthetic.figures import draw_thing
from more_r1.synthetic.frame import SCALE, Canvas, Frame
from more_r1.synthetic.scenes import SCENE_ICONS
from more_r1.synthetic.world import Thing

SIZE = 224
_SKIES = ((206, 222, 236), (226, 214, 198), (198, 214, 200), (222, 206, 222), (188, 200, 214))
_GROUNDS = ((164, 158, 140), (140, 160, 132), (150, 146, 160), (176, 164, 150))

Corners = tuple[int, int, int, int]


def draw(things: Sequence[Thing], scene: str, random: Random) -> tuple[Image.Image, list[Corners]]:
    """Draw things under a scene: the picture, and for each thing its box as left, top, right, bottom in pixels."""
    image = Image.new("RGB", (SIZE * SCALE, SIZE * SCALE), _jitter(random.choice(_SKIES), random))
    canvas = ImageDraw.Draw(image)
    horizon = random.randint(84, 98) * SCALE
    canvas.rectangle((0, horizon, image.width, image.height), fill=_jitter(random.choice(_GROUNDS), random))
    for _ in range(3):
        x, height = random.randint(0, SIZE) * SCALE, random.randint(6, 22) * SCALE
        canvas.rectangle((x, horizon - height, x + 30 * SCALE, horizon), fill=_jitter((182, 186, 190), random))
    side = random.randint(70, 84)
    left, top = random.randint(4, SIZE - side - 4), random.randint(4, 12)
    SCENE_ICONS[scene](canvas, Frame(left, top, side))
    boxes = _places(len(things), random)
    blurred = []
    for thing, box in sorted(zip(things, boxes, strict=True), key=lambda pair: pair[1][3]):
        frame = Frame(box[0], box[1], box[2] - box[0])
        draw_thing(canvas, frame, thing, random)
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


def _jitter(colour: tuple[int, int, int], random: Random) -> tuple[int, int, int]:
    red, green, blue = (min(max(value + random.randint(-10, 10), 0), 255) for value in colour)
    return red, green, blue


def _post(canvas: Canvas, at: Frame, random: Random) -> None:
    """Something thin that stands before the thing."""
    x = random.choice((0.0, 0.9))
    canvas.rectangle(at(x, 0.3, x + 0.09, 1.05), fill=(96, 92, 88))

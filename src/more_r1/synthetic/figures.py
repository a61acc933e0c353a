"""What persons, crests, signs and landmarks look like: the colours and shapes of the world's names."""

from __future__ import annotations

import math
from random import Random

from more_r1.synthetic.frame import INK, Canvas, Frame, star
from more_r1.synthetic.scenes import PROP_ICONS
from more_r1.synthetic.world import COLOURS, EVERYONE, Thing

_SKINS = ((246, 212, 182), (206, 156, 116), (140, 96, 66))
_CURLS = ((0.28, 0.28), (0.32, 0.16), (0.44, 0.09), (0.57, 0.09), (0.68, 0.16), (0.72, 0.28), (0.26, 0.4), (0.74, 0.4))


def draw_thing(canvas: Canvas, at: Frame, thing: Thing, random: Random) -> None:
    """One thing; what is drawn of it depends on it alone, but for a skin colour."""
    if thing.kind == "person":
        _person(canvas, at, thing, random)
    elif thing.kind == "club":
        _crest(canvas, at, thing)
    elif thing.kind == "brand":
        _sign(canvas, at, thing)
    elif thing.kind == "city":
        _landmark(canvas, at, thing)
    else:
        PROP_ICONS[thing.who](canvas, at)


def _person(canvas: Canvas, at: Frame, thing: Thing, random: Random) -> None:
    hair, style = EVERYONE[thing.who].look
    colour = COLOURS[hair]
    skin = random.choice(_SKINS)
    cloth = COLOURS[EVERYONE[thing.kit].look[0] if thing.kit else thing.clothes]
    if style == "long":
        canvas.rounded_rectangle(at(0.24, 0.1, 0.76, 0.7), at.width(0.16), fill=colour)
    if style == "bun":
        canvas.ellipse(at(0.38, 0.0, 0.62, 0.2), fill=colour)
    canvas.rounded_rectangle(at(0.1, 0.56, 0.9, 1.2), at.width(0.2), fill=cloth, outline=INK, width=at.width(0.012))
    if thing.kit:
        for x in (0.3, 0.64):
            canvas.rectangle(at(x, 0.6, x + 0.06, 1.0), fill="white")
    canvas.rectangle(at(0.43, 0.48, 0.57, 0.6), fill=skin)
    canvas.ellipse(at(0.3, 0.12, 0.7, 0.56), fill=skin)
    if style == "curls":
        for x, y in _CURLS:
            canvas.ellipse(at(x - 0.1, y - 0.08, x + 0.1, y + 0.12), fill=colour)
    else:
        canvas.pieslice(at(0.28, 0.07, 0.72, 0.5), 180, 360, fill=colour)
    for x in (0.42, 0.58):
        canvas.ellipse(at(x - 0.025, 0.33, x + 0.025, 0.38), fill=INK)
    canvas.arc(at(0.42, 0.36, 0.58, 0.48), 20, 160, fill=INK, width=at.width(0.02))
    if thing.badge is not None:
        _badge(canvas, at, *thing.badge)


def _badge(canvas: Canvas, at: Frame, kind: str, of: str) -> None:
    if kind == "armband":
        canvas.rectangle(at(0.1, 0.74, 0.3, 0.88), fill="white", outline=INK, width=at.width(0.03))
        return
    colours = [COLOURS[name] for name in EVERYONE[of].look]
    if kind == "rosette":
        canvas.polygon(at(0.6, 0.8, 0.54, 1.0, 0.66, 0.94, 0.78, 1.0, 0.72, 0.8), fill=colours[0], outline="white")
        canvas.ellipse(at(0.52, 0.62, 0.8, 0.88), fill=colours[0], outline="white", width=at.width(0.03))
        canvas.ellipse(at(0.61, 0.71, 0.71, 0.8), fill="white")
    elif kind == "ribbon":
        canvas.line(at(0.36, 0.57, 0.5, 0.78, 0.64, 0.57), fill=INK, width=at.width(0.05))
        canvas.ellipse(at(0.35, 0.7, 0.65, 0.99), fill=colours[0], outline=INK, width=at.width(0.03))
    elif kind == "patch":
        canvas.rectangle(at(0.54, 0.66, 0.86, 0.78), fill=colours[0])
        canvas.rectangle(at(0.54, 0.78, 0.86, 0.9), fill=colours[1])
        canvas.rectangle(at(0.54, 0.66, 0.86, 0.9), outline="white", width=at.width(0.02))
    else:
        canvas.polygon(at(0.12, 0.62, 0.26, 0.57, 0.84, 1.0, 0.62, 1.0), fill=colours[0])
        canvas.polygon(at(0.26, 0.57, 0.4, 0.56, 0.9, 0.9, 0.9, 1.0, 0.84, 1.0), fill=colours[1])


def _crest(canvas: Canvas, at: Frame, thing: Thing) -> None:
    colour, shape = COLOURS[EVERYONE[thing.who].look[0]], EVERYONE[thing.who].look[1]
    shield = at(0.08, 0.06, 0.92, 0.06, 0.92, 0.56, 0.5, 0.98, 0.08, 0.56)
    canvas.polygon(shield, fill="white", outline=INK, width=at.width(0.04))
    if shape == "star":
        canvas.polygon(at(*star(0.5, 0.46, 0.32, 0.14)), fill=colour)
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


def _sign(canvas: Canvas, at: Frame, thing: Thing) -> None:
    ring = COLOURS[EVERYONE[thing.ring].look[0]] if thing.ring else COLOURS["grey"]
    canvas.rectangle(at(0.02, 0.02, 0.98, 0.98), fill=(250, 250, 250), outline=INK, width=at.width(0.03))
    canvas.ellipse(at(0.06, 0.06, 0.94, 0.94), outline=ring, width=at.width(0.12))
    shape = EVERYONE[thing.who].look[0]
    if shape == "bolt":
        canvas.polygon(at(0.56, 0.22, 0.32, 0.54, 0.48, 0.54, 0.42, 0.8, 0.68, 0.44, 0.52, 0.44), fill=INK)
    elif shape == "bars":
        for x, top in ((0.3, 0.56), (0.45, 0.42), (0.6, 0.28)):
            canvas.rectangle(at(x, top, x + 0.1, 0.74), fill=INK)
    elif shape == "hexagon":
        canvas.polygon(at(*star(0.5, 0.5, 0.26, 0.225, 3)), outline=INK, width=at.width(0.08))
    elif shape == "checker":
        for x, y in ((0.3, 0.3), (0.5, 0.5)):
            canvas.rectangle(at(x, y, x + 0.2, y + 0.2), fill=INK)
        canvas.rectangle(at(0.3, 0.3, 0.7, 0.7), outline=INK, width=at.width(0.03))
    elif shape == "hourglass":
        canvas.polygon(at(0.3, 0.26, 0.7, 0.26, 0.3, 0.74, 0.7, 0.74), fill=INK)
    elif shape == "chevron":
        for y in (0.3, 0.5):
            canvas.line(at(0.28, y + 0.18, 0.5, y, 0.72, y + 0.18), fill=INK, width=at.width(0.09))
    elif shape == "square":
        canvas.rectangle(at(0.32, 0.32, 0.68, 0.68), fill=INK)
    else:
        for x, y in ((0.36, 0.36), (0.64, 0.36), (0.36, 0.64), (0.64, 0.64)):
            canvas.ellipse(at(x - 0.09, y - 0.09, x + 0.09, y + 0.09), fill=INK)


def _landmark(canvas: Canvas, at: Frame, thing: Thing) -> None:
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
        white, red = (255, 255, 255), (200, 40, 40)
        for index, colour in enumerate((white, red, white, red)):
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
    canvas.line(at(0.66, 0.02, 0.66, 0.4), fill=INK, width=at.width(0.025))

"""Scene icons, which only the whole picture shows, and props, which mean nothing."""

from __future__ import annotations

from collections.abc import Callable

from more_r1.synthetic.frame import INK, Canvas, Frame, star

Icon = Callable[[Canvas, Frame], None]


def _goal(canvas: Canvas, at: Frame) -> None:
    for x in [index / 8 for index in range(1, 8)]:
        canvas.line(at(x, 0.1, x, 0.95), fill=(250, 250, 250), width=at.width(0.012))
    for y in (0.25, 0.42, 0.6, 0.78):
        canvas.line(at(0.02, y, 0.98, y), fill=(250, 250, 250), width=at.width(0.012))
    canvas.line(at(0.03, 0.97, 0.03, 0.08, 0.97, 0.08, 0.97, 0.97), fill="white", width=at.width(0.07))


def _microphone(canvas: Canvas, at: Frame) -> None:
    canvas.ellipse(at(0.34, 0.02, 0.66, 0.36), fill=(70, 70, 80))
    canvas.rectangle(at(0.38, 0.36, 0.62, 0.44), fill=(200, 60, 60))
    canvas.rectangle(at(0.46, 0.44, 0.54, 0.9), fill=(70, 70, 80))
    canvas.rectangle(at(0.26, 0.88, 0.74, 0.97), fill=(70, 70, 80))


def _hearth(canvas: Canvas, at: Frame) -> None:
    canvas.rectangle(at(0.04, 0.06, 0.96, 0.97), fill=(150, 70, 50))
    canvas.rectangle(at(0.0, 0.02, 1.0, 0.14), fill=(90, 40, 30))
    canvas.rectangle(at(0.22, 0.36, 0.78, 0.97), fill=(30, 20, 20))
    canvas.polygon(at(0.3, 0.95, 0.4, 0.6, 0.48, 0.76, 0.56, 0.48, 0.7, 0.95), fill=(250, 150, 30))


def _cradle(canvas: Canvas, at: Frame) -> None:
    canvas.polygon(at(0.06, 0.4, 0.94, 0.4, 0.8, 0.8, 0.2, 0.8), fill=(250, 190, 210), outline=INK, width=at.width(0.03))
    canvas.pieslice(at(0.5, 0.06, 0.98, 0.74), 180, 360, fill=(170, 220, 250), outline=INK)
    canvas.arc(at(0.1, 0.5, 0.9, 1.0), 20, 160, fill=(110, 70, 40), width=at.width(0.06))


def _lectern(canvas: Canvas, at: Frame) -> None:
    canvas.polygon(at(0.1, 0.16, 0.9, 0.16, 0.78, 0.36, 0.22, 0.36), fill=(120, 76, 40))
    canvas.polygon(at(0.26, 0.36, 0.74, 0.36, 0.68, 0.96, 0.32, 0.96), fill=(146, 96, 54))
    canvas.ellipse(at(0.38, 0.46, 0.62, 0.7), fill=(230, 190, 60), outline=INK)


def _chimney(canvas: Canvas, at: Frame) -> None:
    canvas.polygon(at(0.04, 0.97, 0.04, 0.6, 0.28, 0.46, 0.28, 0.6, 0.52, 0.46, 0.52, 0.97), fill=(120, 120, 130))
    canvas.rectangle(at(0.6, 0.2, 0.78, 0.97), fill=(150, 80, 70))
    for x, y, r in ((0.72, 0.12, 0.1), (0.84, 0.06, 0.08), (0.92, 0.02, 0.06)):
        canvas.ellipse(at(x - r, y - r, x + r, y + r), fill=(236, 236, 236))


def _podium(canvas: Canvas, at: Frame) -> None:
    for x, top, colour in ((0.02, 0.56, (190, 196, 204)), (0.34, 0.36, (226, 180, 50)), (0.66, 0.68, (170, 110, 60))):
        canvas.rectangle(at(x, top, x + 0.32, 0.97), fill=colour, outline=INK, width=at.width(0.02))
    canvas.polygon(at(*star(0.5, 0.18, 0.16, 0.07)), fill=(226, 180, 50))


def _ballot(canvas: Canvas, at: Frame) -> None:
    canvas.polygon(at(0.34, 0.02, 0.66, 0.02, 0.66, 0.5, 0.34, 0.5), fill="white", outline=INK, width=at.width(0.02))
    canvas.line(at(0.4, 0.18, 0.48, 0.28, 0.6, 0.1), fill=(40, 140, 60), width=at.width(0.05))
    canvas.rectangle(at(0.1, 0.42, 0.9, 0.97), fill=(60, 90, 160), outline=INK, width=at.width(0.02))
    canvas.rectangle(at(0.28, 0.46, 0.72, 0.52), fill=INK)


def _globe(canvas: Canvas, at: Frame) -> None:
    canvas.ellipse(at(0.14, 0.04, 0.86, 0.76), fill=(70, 140, 220), outline=INK, width=at.width(0.02))
    canvas.ellipse(at(0.24, 0.16, 0.54, 0.44), fill=(80, 170, 90))
    canvas.ellipse(at(0.5, 0.4, 0.78, 0.64), fill=(80, 170, 90))
    canvas.rectangle(at(0.46, 0.76, 0.54, 0.9), fill=(110, 76, 46))
    canvas.rectangle(at(0.26, 0.88, 0.74, 0.97), fill=(110, 76, 46))


SCENE_ICONS: dict[str, Icon] = {
    "goal": _goal, "microphone": _microphone, "hearth": _hearth, "cradle": _cradle, "lectern": _lectern,
    "chimney": _chimney, "podium": _podium, "ballot": _ballot, "globe": _globe,
}  # fmt: skip


def _ball(canvas: Canvas, at: Frame) -> None:
    canvas.ellipse(at(0.14, 0.14, 0.86, 0.86), fill="white", outline=INK, width=at.width(0.03))
    canvas.polygon(at(*star(0.5, 0.5, 0.16, 0.13)), fill=INK)


def _car(canvas: Canvas, at: Frame) -> None:
    canvas.polygon(at(0.2, 0.5, 0.34, 0.28, 0.68, 0.28, 0.82, 0.5), fill=(160, 190, 210), outline=INK)
    canvas.rectangle(at(0.04, 0.5, 0.96, 0.74), fill=(90, 100, 120), outline=INK)
    for x in (0.26, 0.74):
        canvas.ellipse(at(x - 0.12, 0.62, x + 0.12, 0.86), fill=INK)


def _tree(canvas: Canvas, at: Frame) -> None:
    canvas.rectangle(at(0.44, 0.6, 0.56, 1.0), fill=(110, 76, 46))
    canvas.ellipse(at(0.14, 0.04, 0.86, 0.7), fill=(60, 130, 70))


def _umbrella(canvas: Canvas, at: Frame) -> None:
    canvas.pieslice(at(0.06, 0.12, 0.94, 0.96), 180, 360, fill=(70, 80, 150), outline=INK)
    canvas.line(at(0.5, 0.5, 0.5, 0.94), fill=INK, width=at.width(0.04))


def _chair(canvas: Canvas, at: Frame) -> None:
    for box in ((0.24, 0.06, 0.36, 0.98), (0.24, 0.5, 0.78, 0.62), (0.66, 0.5, 0.78, 0.98), (0.24, 0.14, 0.36, 0.5)):
        canvas.rectangle(at(*box), fill=(120, 80, 50))


def _lamp(canvas: Canvas, at: Frame) -> None:
    canvas.polygon(at(0.3, 0.06, 0.7, 0.06, 0.86, 0.42, 0.14, 0.42), fill=(250, 236, 150), outline=INK)
    canvas.rectangle(at(0.47, 0.42, 0.53, 0.9), fill=INK)
    canvas.rectangle(at(0.3, 0.88, 0.7, 0.96), fill=INK)


PROP_ICONS: dict[str, Icon] = {"ball": _ball, "car": _car, "tree": _tree, "umbrella": _umbrella, "chair": _chair, "lamp": _lamp}

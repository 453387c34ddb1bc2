"""Draws a scene as a picture: what the default painter and describer are trained on.

Anti-aliased shapes on a canvas of four times the size, in a 64-unit frame whatever the size. Needs Pillow and numpy, and is
used for training and in tests only, so nothing imports it when the package is loaded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from wgtorch.blocks.scenes.scene import Scene

Color = tuple[float, float, float]
Point = tuple[float, float]

_UNITS = 64  # the frame that all coordinates below are written in
_OVERSAMPLING = 4
_SKY = {  # colours at the top and at the horizon
    "dawn": ((118, 124, 206), (252, 206, 190)),
    "day": ((52, 126, 226), (186, 222, 252)),
    "dusk": ((66, 36, 108), (255, 128, 48)),
    "night": ((5, 8, 30), (30, 40, 98)),
}
_LIGHT = {"dawn": (0.95, 0.86, 0.90), "day": (1.0, 1.0, 1.0), "dusk": (0.82, 0.58, 0.48), "night": (0.30, 0.36, 0.60)}
_HAZE = {  # what the sky is mixed with (before the light of the hour), and how much of it
    "clear": ((255, 255, 255), 0.0),
    "cloudy": ((170, 175, 185), 0.22),
    "rain": ((112, 122, 142), 0.62),
    "snow": ((206, 210, 224), 0.50),
    "fog": ((196, 200, 208), 0.72),
    "storm": ((54, 58, 80), 0.80),
}
_DIM = {"clear": 1.0, "cloudy": 0.95, "rain": 0.82, "snow": 0.97, "fog": 0.92, "storm": 0.68}
_PAINT = {"red": (208, 38, 34), "blue": (38, 92, 222), "yellow": (244, 190, 30), "white": (246, 246, 244)}
_PLACE = {"left": 15.0, "middle": 32.0, "right": 49.0, None: 32.0}
_LIGHT_AT = {"left": 45.0, "middle": 13.0, "right": 20.0, None: 43.0}  # sun, moon: away from the landmark
_TRAVELLER_AT = {"left": 45.0, "middle": 54.0, "right": 19.0, None: 36.0}
_FEET = 54.0  # where landmarks stand
_HORIZON = 37.0
_LAMP = (255, 218, 96)
_SNOW = (238, 240, 248)


def draw(scene: Scene, seed: int, size: int = 64) -> np.ndarray:
    """The picture of a scene, uint8 [size, size, 3]; the same for the same scene, seed and size.

    The seed moves what the scene leaves open: clouds, ridges, trees, where exactly the sun stands.
    """
    return np.asarray(_Canvas(scene, seed, size).paint())


class _Canvas:
    def __init__(self, scene: Scene, seed: int, size: int):
        self.scene = scene
        self.rng = random.Random(f"{scene}/{seed}")
        self.size = size
        self.scale = size * _OVERSAMPLING / _UNITS
        self.snowy = scene.weather == "snow"
        dim = _DIM[scene.weather]
        self.light = tuple(dim * channel for channel in _LIGHT[scene.time])
        gray, share = _HAZE[scene.weather]
        haze = _times(gray, _LIGHT[scene.time])
        top, bottom = _SKY[scene.time]
        self.sky = (_mix(top, haze, share), _mix(bottom, haze, share))
        self.horizon = _HORIZON + self.rng.uniform(-1, 1)
        self.image = self._gradient(*self.sky, self.horizon)
        self.pen = ImageDraw.Draw(self.image)
        self.lamps = scene.time in ("night", "dusk") or scene.weather in ("storm",)

    def paint(self) -> Image.Image:
        scene = self.scene
        self._lights_of_the_sky()
        if scene.weather in ("cloudy", "rain", "snow", "storm"):
            self._clouds()
        if scene.weather == "storm":
            self._lightning()
        getattr(self, f"_{scene.terrain}")()
        if scene.landmark != "none":
            self._landmark()
        if scene.traveller == "yes":
            self._traveller(_TRAVELLER_AT[scene.place] + self.rng.uniform(-1.5, 1.5))
        if scene.weather == "fog":
            self._banks_of_fog()
        if scene.weather in ("rain", "storm"):
            self._rain()
        if scene.weather == "snow":
            self._snowflakes()
        return self.image.reduce(_OVERSAMPLING)

    # --- colours -----------------------------------------------------------------------------------------------------

    def lit(self, color: Color, depth: float = 0.0, lift: float = 0.0) -> Color:
        """A colour in the light of the hour, and behind the haze that lies before things `depth` (0 near, 1 far) away."""
        light = tuple(channel + lift * (1 - channel) for channel in self.light)
        thickness = {"fog": 0.34 + 0.36 * depth, "rain": 0.08 + 0.25 * depth, "snow": 0.2 * depth, "storm": 0.2 * depth}
        return _mix(_times(color, light), self.sky[1], thickness.get(self.scene.weather, 0.12 * depth))

    def ground(self, color: Color, depth: float = 0.0) -> Color:
        return self.lit(_mix(color, _SNOW, 0.78) if self.snowy else color, depth)

    # --- strokes, in the 64-unit frame --------------------------------------------------------------------------------

    def _polygon(self, points: Sequence[Point], color: Color) -> None:
        self.pen.polygon([(x * self.scale, y * self.scale) for x, y in points], fill=_bytes(color))

    def _rectangle(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        s = self.scale
        left, top = x0 * s, y0 * s
        self.pen.rectangle((left, top, max(left, x1 * s - 1), max(top, y1 * s - 1)), fill=_bytes(color))

    def _ellipse(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        s = self.scale
        self.pen.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill=_bytes(color))

    def _line(self, points: Sequence[Point], color: Color, width: float) -> None:
        s = self.scale
        self.pen.line([(x * s, y * s) for x, y in points], fill=_bytes(color), width=max(1, round(width * s)), joint="curve")

    def _gradient(self, top: Color, bottom: Color, height: float) -> Image.Image:
        side = self.size * _OVERSAMPLING
        rows = np.linspace(0, _UNITS / height, side)[:, None].clip(0, 1)
        column = (1 - rows) * np.array(top) + rows * np.array(bottom)
        return Image.fromarray(column.round().astype(np.uint8)[:, None]).resize((side, side), Image.Resampling.NEAREST)

    def _below(self, ridge: Sequence[Point], top: Color, bottom: Color, until: float = _UNITS) -> None:
        """Fills what lies below a ridge with a vertical gradient."""
        side = self.size * _OVERSAMPLING
        start = min(y for _, y in ridge)
        mask = Image.new("L", (side, side))
        points = [(x * self.scale, y * self.scale) for x, y in ridge]
        ImageDraw.Draw(mask).polygon([*points, (side, side), (0, side)], fill=255)
        rows = ((np.arange(side) / self.scale - start) / max(until - start, 1e-6))[:, None].clip(0, 1)
        column = (1 - rows) * np.array(top) + rows * np.array(bottom)
        fill = Image.fromarray(column.round().astype(np.uint8)[:, None]).resize((side, side), Image.Resampling.NEAREST)
        self.image.paste(fill, (0, 0), mask)

    def _glow(self, x: float, y: float, radius: float, color: Color, strength: float) -> None:
        side = 2 * round(radius * self.scale)
        mask = Image.fromarray((_radial() * 255 * strength).astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
        corner = (round(x * self.scale) - side // 2, round(y * self.scale) - side // 2)
        self.image.paste(Image.new("RGB", (side, side), _bytes(color)), corner, mask)

    def _wave(self, height: float, swing: float, length: float) -> list[Point]:
        """A ridge of two sines across the picture."""
        a, b = self.rng.uniform(0, 2 * math.pi), self.rng.uniform(0, 2 * math.pi)
        return [
            (x, height + swing * (0.7 * math.sin(2 * math.pi * x / length + a) + 0.3 * math.sin(4.6 * math.pi * x / length + b)))
            for x in range(0, 66, 2)
        ]

    # --- the sky ------------------------------------------------------------------------------------------------------

    def _lights_of_the_sky(self) -> None:
        scene, rng = self.scene, self.rng
        if scene.weather != "clear":
            if scene.time == "dusk":
                self._glow(32, self.horizon, 30, _mix((255, 120, 40), self.sky[1], 0.5), 0.35)
            return
        x = _LIGHT_AT[scene.place] + rng.uniform(-2, 2)
        if scene.time == "night":
            stars = random.Random("the stars stand where they always stood")
            for _ in range(16):
                self._ellipse(stars.uniform(2, 62), stars.uniform(2, 30), r := stars.choice((0.5, 0.7)), r, (232, 236, 255))
            y = rng.uniform(8, 12)
            self._glow(x, y, 13, (150, 165, 230), 0.5)
            self._ellipse(x, y, 5, 5, (250, 246, 222))
            self._ellipse(x + 2.4, y - 1.2, 4.2, 4.2, _mix(self.sky[0], self.sky[1], 0.3))
            self.light_of_sky = (x, (250, 246, 222))
        elif scene.time == "day":
            y = rng.uniform(8, 12)
            self._glow(x, y, 14, (255, 246, 190), 0.75)
            self._ellipse(x, y, 5, 5, (255, 238, 96))
        else:
            hot = (255, 92, 36) if scene.time == "dusk" else (255, 232, 176)
            y = self.horizon - (5 if scene.time == "dusk" else 7)
            self._glow(x, y, 22, hot, 0.7)
            self._ellipse(x, y, 6, 6, (255, 170, 60) if scene.time == "dusk" else (255, 246, 214))

    def _clouds(self) -> None:
        scene, rng = self.scene, self.rng
        dark = {"cloudy": (250, 250, 252), "snow": (226, 228, 236), "rain": (128, 132, 146), "storm": (62, 62, 76)}[scene.weather]
        light = _mix(_LIGHT[scene.time], (1, 1, 1), 0.15)
        color = _times(dark, light)
        shade = _mix(color, self.sky[0], 0.35)
        few, many = [(14, 8), (36, 16), (54, 7)], [(4, 4), (20, 7), (36, 4), (52, 7), (64, 4)]
        for at_x, at_y in few if scene.weather == "cloudy" else many:
            x, y = at_x + rng.uniform(-4, 4), at_y + rng.uniform(-1.5, 1.5)
            width = rng.uniform(8, 10.5)
            for dx, dy, r in ((-0.7, 0.12, 0.32), (-0.25, -0.12, 0.44), (0.3, -0.02, 0.38), (0.72, 0.14, 0.28)):
                self._ellipse(x + dx * width, y + dy * width + 1.1, r * width, r * width * 0.8, shade)
            for dx, dy, r in ((-0.7, 0.12, 0.32), (-0.25, -0.12, 0.44), (0.3, -0.02, 0.38), (0.72, 0.14, 0.28)):
                self._ellipse(x + dx * width, y + dy * width - 0.2, r * width, r * width * 0.75, color)

    def _lightning(self) -> None:
        rng = self.rng
        x = {"left": 44, "middle": 10, "right": 20}.get(self.scene.place or "", 42) + rng.uniform(-2.5, 2.5)
        bolt = [(x, 10), (x - 3, 18), (x + 1.2, 19), (x - 3.4, 28), (x + 0.6, 28.6), (x - 2.6, 38)]
        self._glow(x - 1, 22, 17, (186, 176, 255), 0.55)
        self._line(bolt, (214, 206, 255), 2.2)
        self._line(bolt, (255, 255, 226), 1.2)

    def _rain(self) -> None:
        drops = random.Random(f"drops {self.rng.randrange(4)}")
        color = _mix(_times((205, 218, 236), _mix(self.light, (1, 1, 1), 0.3)), self.sky[1], 0.15)
        for row in range(6):
            for column in range(5):
                x = column * 13 + (row % 2) * 6.5 + drops.uniform(-2.5, 2.5)
                y = row * 11 + drops.uniform(-3, 3)
                self._line([(x, y), (x - 1.9, y + 5.5)], color, 0.55)

    def _snowflakes(self) -> None:
        flakes = random.Random(f"flakes {self.rng.randrange(4)}")
        color = _mix((255, 255, 255), self.sky[1], 0.12)
        for row in range(6):
            for column in range(5):
                x = column * 13 + (row % 2) * 6.5 + flakes.uniform(-3, 3)
                y = row * 10.5 + 3 + flakes.uniform(-3, 3)
                self._ellipse(x, y, r := flakes.choice((0.8, 1.05)), r, color)

    def _banks_of_fog(self) -> None:
        color = _mix(self.sky[1], (255, 255, 255), 0.12 if self.scene.time == "night" else 0.25)
        for x, y, strength in ((12, 41, 0.38), (44, 39, 0.42), (28, 58, 0.30)):
            self._glow(x + self.rng.uniform(-4, 4), y, 24, color, strength)

    # --- terrains -----------------------------------------------------------------------------------------------------

    def _sea(self) -> None:
        scene, rng = self.scene, self.rng
        water = _mix((38, 112, 170), (150, 165, 180), 0.25) if self.snowy else (38, 112, 170)
        near = self.lit(_mix(water, (8, 42, 96), 0.55))
        far = _mix(self.lit(water, 1.0), self.sky[1], 0.25)
        edge = self.horizon
        self._below([(0, edge), (64, edge)], far, near)
        crest = _mix(self.lit((176, 214, 236), lift=0.1), far, 0.35)
        waves = random.Random(f"waves {rng.randrange(3)}")
        for row in range(5):
            y = edge + 3 + row * 5.2
            for column in range(3):
                x = column * 22 + (row % 2) * 11 + waves.uniform(-3, 3)
                self._rectangle(x, y, x + 4 + row, y + 0.7, crest)
        if scene.weather == "clear" and scene.time == "night":
            x, color = self.light_of_sky
            for row in range(5):
                half = 2.0 + 0.8 * row
                self._rectangle(x - half, edge + 1.5 + row * 5, x + half, edge + 2.7 + row * 5, _mix(color, near, 0.35))

    def _meadow(self) -> None:
        edge = self.horizon
        self._below(self._wave(edge - 1, 0.8, 40), self.ground((66, 118, 60), 0.8), self.ground((66, 118, 60), 0.5))
        self._below([(0, edge + 1.5), (64, edge + 1.5)], self.ground((136, 186, 78), 0.5), self.ground((64, 130, 44)))
        flowers = random.Random(f"flowers {self.rng.randrange(3)}")
        for row in range(3):
            for column in range(5):
                x, y = column * 13 + 4 + (row % 2) * 6 + flowers.uniform(-2, 2), edge + 7 + row * 8 + flowers.uniform(-1.5, 1.5)
                self._ellipse(x, y, 0.95, 0.95, self.lit(flowers.choice(((244, 84, 92), (250, 214, 70), (240, 236, 250))), lift=0.1))

    def _hills(self) -> None:
        edge = self.horizon
        for height, swing, length, color, depth in (
            (edge - 6, 4.0, 46, (96, 158, 104), 0.9),
            (edge + 1, 3.4, 38, (98, 172, 84), 0.5),
            (edge + 9, 2.4, 52, (84, 164, 60), 0.0),
        ):
            self._below(
                self._wave(height, swing, length),
                self.ground(color, depth),
                self.ground(_times(color, (0.66, 0.72, 0.62)), depth),
                height + 20,
            )

    def _mountains(self) -> None:
        rng, edge = self.rng, self.horizon + 4
        for at_x, rise, half, depth in ((6, 21, 15, 0.9), (33, 25, 17, 0.8), (58, 22, 15, 0.9), (19, 15, 12, 0.4), (46, 16, 13, 0.4)):
            x, height = at_x + rng.uniform(-2.5, 2.5), rise + rng.uniform(-2, 2)
            top, rock = edge - height, _mix((112, 110, 128), (92, 94, 118), depth)
            self._polygon(
                [(x, top), (x + half, edge), (x - half, edge)],
                self.ground(rock, depth) if not self.snowy else self.lit(_mix(rock, _SNOW, 0.3), depth),
            )
            self._polygon([(x, top), (x + half, edge), (x + 0.2 * half, edge)], self.lit(_times(rock, (0.72, 0.72, 0.78)), depth))
            cap, cut = self.lit((250, 250, 255), depth, lift=0.08), 0.36
            left, right, low = x - cut * half, x + cut * half, top + cut * height
            self._polygon(
                [(x, top), (right, low), (x + 0.16 * half, low - 1.6), (x, low + 1.2), (x - 0.18 * half, low - 1.6), (left, low)], cap
            )
        self._below(self._wave(edge - 0.6, 0.7, 50), self.ground((122, 152, 96), 0.4), self.ground((78, 112, 64)))

    def _desert(self) -> None:
        edge = self.horizon
        for height, swing, length, color, depth in (
            (edge - 2, 3.0, 56, (226, 176, 108), 0.9),
            (edge + 4, 2.6, 44, (240, 194, 116), 0.4),
            (edge + 12, 2.4, 60, (250, 208, 128), 0.0),
        ):
            self._below(
                self._wave(height, swing, length),
                self.ground(color, depth),
                self.ground(_times(color, (0.82, 0.74, 0.62)), depth),
                height + 18,
            )
        for x, y in self._beside([(9, 51), (27, 48), (40, 50), (57, 49)]):
            green = self.lit((62, 132, 70), 0.15)
            self._rectangle(x - 1.1, y - 9, x + 1.1, y, green)
            self._ellipse(x, y - 9, 1.1, 1.1, green)
            self._line([(x - 3.2, y - 7), (x - 3.2, y - 4.4), (x, y - 4.4)], green, 1.5)
            self._line([(x + 3.2, y - 8), (x + 3.2, y - 3.4), (x, y - 3.4)], green, 1.5)

    def _forest(self) -> None:
        rng, edge = self.rng, self.horizon + 3
        self._below([(0, edge), (64, edge)], self.ground((84, 116, 62), 0.6), self.ground((52, 84, 40)))
        for index in range(11):
            self._tree(index * 6.4 + rng.uniform(-1.2, 1.2), edge + 1, 4.4, 15 + rng.uniform(-2, 2), (40, 84, 62), 0.8)
        for x, y in self._beside([(5, 50), (20, 47), (42, 47), (59, 50)]):
            self._tree(x, y, 6.2, 21 + rng.uniform(-1.5, 1.5), (34, 104, 60), 0.1)

    def _tree(self, x: float, y: float, half: float, height: float, color: Color, depth: float) -> None:
        self._rectangle(x - 0.8, y - 2, x + 0.8, y + 1, self.lit((96, 66, 44), depth))
        for level in range(3):
            base, width = y - 1 - level * 0.26 * height, half * (1 - 0.24 * level)
            tip = base - 0.46 * height
            self._polygon([(x, tip), (x + width, base), (x - width, base)], self.lit(_times(color, (1, 1, 1)), depth))
            self._polygon([(x, tip), (x + width, base), (x + 0.15 * width, base)], self.lit(_times(color, (0.76, 0.8, 0.8)), depth))
            if self.snowy:
                self._polygon(
                    [(x, tip), (x + 0.55 * width, base - 0.2 * height), (x - 0.55 * width, base - 0.2 * height)], self.lit(_SNOW, depth)
                )

    def _beside(self, places: Sequence[Point]) -> list[Point]:
        """The places, moved a little, that neither landmark nor traveller covers."""
        scene = self.scene
        taken = [_PLACE[scene.place]] * (scene.landmark != "none")
        free = [(x, y) for x, y in places if all(abs(x - other) > 11 for other in taken)]
        if scene.traveller == "yes":
            free = [(x, y) for x, y in free if abs(x - _TRAVELLER_AT[scene.place]) > 5.5]
        return [(x + self.rng.uniform(-1.5, 1.5), y + self.rng.uniform(-1, 1)) for x, y in free]

    # --- landmarks and the traveller ------------------------------------------------------------------------------------

    def _landmark(self) -> None:
        scene = self.scene
        x = _PLACE[scene.place] + self.rng.uniform(-1.2, 1.2)
        y = _FEET + self.rng.uniform(-0.7, 0.7)
        if scene.terrain == "sea" and scene.landmark != "ship":
            self._island(x, y, 14.5 if scene.landmark == "castle" else 12.5)
        paint = _PAINT[scene.color or "white"]
        getattr(self, f"_{scene.landmark}")(x, y, self.lit(paint, lift=0.30), self.lit(_times(paint, (0.7, 0.7, 0.74)), lift=0.26))

    def _island(self, x: float, y: float, half: float) -> None:
        self._ellipse(x, y + 0.8, half, 3.4, self.lit((150, 132, 96)))
        self._ellipse(x, y + 0.1, half - 0.8, 2.7, self.ground((92, 140, 66)))

    def _window(self, x: float, y: float, half: float = 1.1, height: float = 2.6) -> None:
        color = _mix(_LAMP, self.sky[1], 0.25 if self.scene.weather == "fog" else 0) if self.lamps else self.lit((70, 84, 112))
        self._rectangle(x - half, y - height, x + half, y, color)

    def _stone(self, color: Color = (178, 176, 186), factor: float = 1.0) -> Color:
        return self.lit(_times(color, (factor,) * 3), lift=0.1)

    def _house(self, x: float, y: float, paint: Color, shade: Color) -> None:
        self._rectangle(x + 4, y - 18, x + 6.6, y - 11, self._stone((128, 92, 82)))
        self._rectangle(x - 8, y - 9.5, x + 8, y, self._stone((232, 216, 188)))
        self._polygon([(x - 10.5, y - 9), (x - 5, y - 17.5), (x + 5, y - 17.5), (x + 10.5, y - 9)], paint)
        self._rectangle(x - 10.5, y - 9.6, x + 10.5, y - 8.4, shade)
        self._rectangle(x - 1.6, y - 6.4, x + 1.6, y, self._stone((112, 74, 50)))
        self._window(x - 5, y - 3)
        self._window(x + 5, y - 3)

    def _castle(self, x: float, y: float, paint: Color, shade: Color) -> None:
        wall, dark = self._stone(), self._stone(factor=0.78)
        self._rectangle(x - 8, y - 12, x + 8, y, wall)
        for k in range(-2, 3):
            self._rectangle(x + k * 3.4 - 1.1, y - 14, x + k * 3.4 + 1.1, y - 12, wall)
        for side in (-1, 1):
            tower = x + side * 9.5
            self._rectangle(tower - 3.5, y - 18, tower + 3.5, y, wall)
            self._rectangle(tower + 1.6, y - 18, tower + 3.5, y, dark)
            self._polygon([(tower - 4.8, y - 17.5), (tower, y - 26), (tower + 4.8, y - 17.5)], paint)
            self._polygon([(tower + 0.8, y - 17.5), (tower, y - 26), (tower + 4.8, y - 17.5)], shade)
            self._window(tower, y - 10, 1.0, 3.2)
        self._ellipse(x, y - 4.6, 2.8, 2.8, self._stone((64, 48, 46)))
        self._rectangle(x - 2.8, y - 4.6, x + 2.8, y, self._stone((64, 48, 46)))

    def _windmill(self, x: float, y: float, paint: Color, shade: Color) -> None:
        self._polygon([(x - 6, y), (x - 3.6, y - 17), (x + 3.6, y - 17), (x + 6, y)], self._stone((226, 208, 186)))
        self._polygon([(x + 2, y), (x + 1.6, y - 17), (x + 3.6, y - 17), (x + 6, y)], self._stone((190, 168, 148)))
        self._polygon([(x - 4.4, y - 16.6), (x, y - 22.5), (x + 4.4, y - 16.6)], self._stone((120, 88, 72)))
        self._rectangle(x - 1.5, y - 5.4, x + 1.5, y, self._stone((96, 64, 46)))
        self._window(x, y - 8.6, 1.0, 2.4)
        hub_y = y - 17.5
        for angle in (45, 135, 225, 315):
            c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            self._line([(x, hub_y), (x + 13 * c, hub_y + 13 * s)], self._stone((92, 66, 50)), 0.9)
            inner, outer, wide = 3.2, 13, 3.4
            corners = [(inner, 0), (outer, 0), (outer, wide), (inner, wide)]
            self._polygon([(x + a * c - b * s, hub_y + a * s + b * c) for a, b in corners], paint)
        self._ellipse(x, hub_y, 1.5, 1.5, self._stone((80, 56, 44)))

    def _tower(self, x: float, y: float, paint: Color, shade: Color) -> None:
        self._rectangle(x - 4.6, y - 23, x + 4.6, y, self._stone())
        self._rectangle(x + 1.8, y - 23, x + 4.6, y, self._stone(factor=0.78))
        self._rectangle(x - 5.8, y - 24.5, x + 5.8, y - 22.3, self._stone(factor=0.9))
        self._polygon([(x - 6.6, y - 24), (x, y - 36), (x + 6.6, y - 24)], paint)
        self._polygon([(x + 1.2, y - 24), (x, y - 36), (x + 6.6, y - 24)], shade)
        self._rectangle(x - 1.6, y - 5.4, x + 1.6, y, self._stone((86, 60, 50)))
        for height in (9.5, 16):
            self._window(x, y - height, 1.1, 3.0)

    def _tent(self, x: float, y: float, paint: Color, shade: Color) -> None:
        self._polygon([(x - 11, y), (x, y - 15.5), (x + 11, y)], paint)
        self._polygon([(x + 3.6, y), (x, y - 15.5), (x + 11, y)], shade)
        self._polygon([(x - 3.6, y), (x, y - 10.5), (x + 3.6, y)], _LAMP if self.lamps else self._stone((70, 52, 48)))
        self._line([(x, y - 18), (x, y - 15)], self._stone((96, 70, 52)), 0.9)

    def _ship(self, x: float, y: float, paint: Color, shade: Color) -> None:
        hull = self._stone((128, 78, 48))
        self._rectangle(x - 0.6, y - 25, x + 0.6, y - 3, self._stone((92, 62, 44)))
        self._polygon([(x - 1.4, y - 23.5), (x - 1.4, y - 6.5), (x - 11, y - 6.5)], paint)
        self._polygon([(x + 1.4, y - 21), (x + 1.4, y - 6.5), (x + 9.5, y - 6.5)], shade)
        self._polygon([(x - 12.5, y - 5), (x + 12.5, y - 5), (x + 8.5, y + 0.6), (x - 8.5, y + 0.6)], hull)
        self._rectangle(x - 12.5, y - 5.2, x + 12.5, y - 4, self._stone((176, 120, 76)))

    def _traveller(self, x: float) -> None:
        y = 59.5 + self.rng.uniform(-0.5, 0.5)
        if self.scene.terrain == "sea":  # a traveller at sea sits in a rowing boat
            self._polygon([(x - 7, y - 2.4), (x + 7, y - 2.4), (x + 4.6, y + 1.4), (x - 4.6, y + 1.4)], self._stone((112, 70, 44)))
            y -= 1.6
        cloak, dark = self.lit((150, 58, 40), lift=0.2), self.lit((96, 36, 30), lift=0.15)
        self._line([(x + 4, y - 11.5), (x + 4, y)], self.lit((120, 88, 56), lift=0.1), 0.9)
        self._polygon([(x - 3.6, y), (x - 1.8, y - 9), (x + 1.8, y - 9), (x + 3.6, y)], cloak)
        self._polygon([(x + 0.8, y), (x + 0.5, y - 9), (x + 1.8, y - 9), (x + 3.6, y)], dark)
        self._polygon([(x - 2.9, y - 7.6), (x, y - 14), (x + 2.9, y - 7.6)], cloak)
        self._ellipse(x, y - 9.2, 1.5, 1.6, self.lit((236, 196, 160), lift=0.2))


def _radial() -> np.ndarray:
    """A soft disc [65, 65], 1 at the centre and 0 at the rim."""
    axis = np.linspace(-1, 1, 65)
    distance = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    return (1 - distance).clip(0, 1) ** 1.6


def _mix(a: Sequence[float], b: Sequence[float], share: float) -> Color:
    return tuple((1 - share) * x + share * y for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _times(a: Sequence[float], b: Sequence[float]) -> Color:
    return tuple(x * y for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _bytes(color: Sequence[float]) -> tuple[int, int, int]:
    return tuple(min(255, max(0, round(channel))) for channel in color)  # type: ignore[return-value]

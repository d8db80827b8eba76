"""A classifier that a few milliseconds can train, and that can say in words why it decided as it did."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_wine  # type: ignore[import-untyped]  # scikit-learn ships no types
from sklearn.ensemble import RandomForestClassifier  # type: ignore[import-untyped]

Floats = NDArray[np.float64]

SCAN_POINTS = 64
"""Values of one measurement that are tried when the explanation looks for the point where the answer tips over."""


class WineModel:
    """A random forest over scikit-learn's wine data: 13 measurements in, one of three cultivars out.

    Trained when constructed, always to the same forest. All methods may be called from several threads.
    """

    def __init__(self) -> None:
        data = load_wine()
        self._known: Floats = data.data
        self._known_classes = [str(data.target_names[number]) for number in data.target]
        self._forest = RandomForestClassifier(n_estimators=300, random_state=0).fit(data.data, data.target)
        self._middle: Floats = np.median(data.data, axis=0)
        self._spread: Floats = np.std(data.data, axis=0)
        self.classes: tuple[str, ...] = tuple(str(name) for name in data.target_names)
        self.features: tuple[str, ...] = tuple(str(name) for name in data.feature_names)

    @property
    def sample_count(self) -> int:
        """How many wines the data set holds; they are numbered from 0."""
        return len(self._known)

    @property
    def usual(self) -> list[float]:
        """The median of each measurement over all known wines."""
        return [float(value) for value in self._middle]

    def sample(self, number: int) -> list[float]:
        """The measurements of one wine of the data set.

        Raises:
            IndexError: there is no wine of that number.
        """
        return [float(value) for value in self._known[number]]

    def predict(self, rows: Sequence[Sequence[float]]) -> list[str]:
        """The most likely class of each row of measurements."""
        return [self.classes[number] for number in np.argmax(self._probabilities(np.asarray(rows)), axis=1)]

    def explain(self, row: Sequence[float]) -> Iterator[str]:
        """Sentences about the prediction for one wine. Each is computed only when it is asked for."""
        wine = np.asarray(row)
        chances = self._probabilities(wine[None, :])[0]
        winner = int(np.argmax(chances))
        yield f"The forest says {self.classes[winner]}, with a probability of {chances[winner]:.2f}."
        losses = self._losses(wine, winner)
        for feature in np.argsort(-losses)[:4]:
            without = chances[winner] - losses[feature]
            yield (
                f"With the usual {self.features[feature]} of {self._middle[feature]:g} instead of {wine[feature]:g}, "
                f"that would be {without:.2f}."
            )
            yield self._tipping_point(wine, int(feature), winner)
        yield self._neighbour(wine)

    def _probabilities(self, rows: Floats) -> Floats:
        return np.asarray(self._forest.predict_proba(rows), dtype=np.float64)

    def _losses(self, wine: Floats, winner: int) -> Floats:
        """How much probability the winner loses when one measurement at a time is replaced by the median."""
        rows = np.tile(wine, (len(self.features), 1))
        np.fill_diagonal(rows, self._middle)
        whole: Floats = self._probabilities(wine[None, :])[:, winner]
        return whole - self._probabilities(rows)[:, winner]

    def _neighbour(self, wine: Floats) -> str:
        distances = np.linalg.norm((self._known - wine) / self._spread, axis=1)
        distances[distances == 0.0] = np.inf
        nearest = int(np.argmin(distances))
        return f"The most similar other wine is number {nearest}, a known {self._known_classes[nearest]}."

    def _tipping_point(self, wine: Floats, feature: int, winner: int) -> str:
        """The change of one measurement, nearest to its value, that gives another answer."""
        values = np.linspace(self._known[:, feature].min(), self._known[:, feature].max(), SCAN_POINTS)
        rows = np.tile(wine, (SCAN_POINTS, 1))
        rows[:, feature] = values
        answers = np.argmax(self._probabilities(rows), axis=1)
        name = self.features[feature]
        others = np.flatnonzero(answers != winner)
        if not others.size:
            return f"No {name} alone would change the answer."
        nearest = others[np.argmin(np.abs(values[others] - wine[feature]))]
        side = "above" if values[nearest] > wine[feature] else "below"
        return f"A {name} {side} about {values[nearest]:.3g} would make it {self.classes[int(answers[nearest])]}."

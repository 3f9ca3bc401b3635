"""The thread tuner: how many threads a step has, by the measured times of steps.

A step's threads spin at each of its barriers until the last of them is there. Alone on the cores two are
faster than one; where others compute, threads wait for one that has no core, and fewer are faster. Nobody
says which of the two it is, so both are tried.
"""

from __future__ import annotations

from collections import deque
from statistics import median

FIRST_LOOK = 4
"""After so many steps with a number of threads another one is tried."""
PAIRS = 5
"""Steps of each kind in a trial, in turns: what else the host does then concerns both."""
CLEAR_PAIRS = 3
"""A trial ends with so many, if even the longest step with one number is shorter than all with the other."""
PLAIN_PAIRS = 2
"""And with so many, if all steps with the present number take HOPELESS times as long: where threads wait for
cores, a step may take seconds."""
BETTER = 0.95
"""Another number of threads is taken if its median time is less than this share of the present one's."""
HOPELESS = 1.5
"""A trial ends as soon as all steps with the other number take so many times as long as the present ones."""
BUDGET = 0.01
"""Of all time, what trials may cost: the next one comes so many steps later."""
AFTER_A_CHANGE = 32
"""Steps until it is tried whether the way back is better by now, where no way goes on."""
SHORTEST_WAIT, LONGEST_WAIT = 64, 512
"""Steps until the next trial, whatever the last one has cost: more threads that gain nothing cost others
something, and one step may be long for any reason."""
CHANGED = 1.5
"""Steps that take so many times what they took at the last trial, or so much less, say that somebody has come
or gone: the next trial does not wait then."""
NOTICED = 3
"""Steps in a row of which a change is believed."""
PATIENCE = 64
"""A trial is given up when so many steps of other sizes came in its midst."""


LEAST_MS = 1e-6


class Trial:
    """Steps of one number of rows, in turns with `threads` and with the present number of threads."""

    def __init__(self, rows: int, threads: int) -> None:
        self.rows = rows
        self.threads = threads
        self.other_ms: list[float] = []
        self.present_ms: list[float] = []
        self.steps_between = 0

    @property
    def others_turn(self) -> bool:
        """Whether the next step is one with the other number of threads."""
        return len(self.other_ms) == len(self.present_ms)

    @property
    def verdict(self) -> bool | None:
        """Whether the other number is better; None as long as that is open."""
        if not self.present_ms or not self.others_turn:
            return None
        if min(self.other_ms) > HOPELESS * median(self.present_ms):
            return False
        if len(self.other_ms) >= PLAIN_PAIRS and HOPELESS * max(self.other_ms) < min(self.present_ms):
            return True
        if len(self.other_ms) >= CLEAR_PAIRS and max(self.other_ms) < BETTER * min(self.present_ms):
            return True
        if len(self.other_ms) < PAIRS:
            return None
        return median(self.other_ms) < BETTER * median(self.present_ms)

    @property
    def cost_steps(self) -> float:
        """What the trial has cost: how many steps with the present number would have fitted in."""
        if not self.present_ms:
            return len(self.other_ms)
        usual_ms = max(median(self.present_ms), LEAST_MS)
        return sum(max(0.0, ms / usual_ms - 1.0) for ms in self.other_ms)


class Choice:
    """How many threads steps of about as many rows have. It begins with all of them."""

    def __init__(self, most: int) -> None:
        self.threads = most
        self._most = most
        self._upwards = False
        self._steps = 0
        self._wait = FIRST_LOOK
        self._usual: tuple[int, float] | None = None
        self._latest: deque[float] = deque(maxlen=NOTICED)
        self._trial: Trial | None = None

    def next(self, rows: int) -> int:
        """The threads of the next step, which has so many rows."""
        if self._trial is None and self._is_time():
            self._trial = Trial(rows, self._neighbour())
        if self._trial is not None and self._trial.rows == rows and self._trial.others_turn:
            return self._trial.threads
        return self.threads

    def note(self, rows: int, threads: int, ms: float) -> None:
        """A step of so many rows with so many threads took so long."""
        trial = self._trial
        if trial is None:
            self._steps += 1
            self._watch(rows, ms)
        elif rows != trial.rows:
            trial.steps_between += 1
            if trial.steps_between > PATIENCE:
                self._begin_waiting(_wait_after(trial))
        else:
            (trial.other_ms if threads == trial.threads else trial.present_ms).append(ms)
            if trial.verdict is not None:
                self._end(trial, better=trial.verdict)

    def _is_time(self) -> bool:
        if self._most == 1 or self._steps < FIRST_LOOK:
            return False
        if self._is_longer() and self.threads > 1:
            self._upwards = False
            return True
        if self._is_shorter() and self.threads < self._most:
            self._upwards = True
            return True
        return self._steps >= self._wait

    def _neighbour(self) -> int:
        """Half the threads or twice as many; the way that is not blocked."""
        if self.threads == self._most:
            self._upwards = False
        elif self.threads == 1:
            self._upwards = True
        return min(self._most, 2 * self.threads) if self._upwards else self.threads // 2

    def _watch(self, rows: int, ms: float) -> None:
        """Keeps the latest steps of as many rows as the last trial's."""
        if self._usual is not None and rows == self._usual[0]:
            self._latest.append(ms)

    @property
    def _is_noticed(self) -> bool:
        return len(self._latest) == NOTICED

    def _is_longer(self) -> bool:
        """Whether the latest steps take longer than at the last trial, as when somebody has come."""
        return self._usual is not None and self._is_noticed and min(self._latest) > CHANGED * self._usual[1]

    def _is_shorter(self) -> bool:
        """Whether they take less time, as when somebody has gone."""
        return self._usual is not None and self._is_noticed and max(self._latest) * CHANGED < self._usual[1]

    def _end(self, trial: Trial, *, better: bool) -> None:
        """Takes the better number. The next trial goes on in the same direction after success, else in the
        other one, so much later that this one's cost is what it may be."""
        if better:
            self.threads = trial.threads
            self._begin_waiting(AFTER_A_CHANGE if self.threads in (1, self._most) else FIRST_LOOK)
        else:
            self._upwards = not self._upwards
            self._begin_waiting(_wait_after(trial))
        self._usual = (trial.rows, median(trial.other_ms if better else trial.present_ms))

    def _begin_waiting(self, steps: int) -> None:
        self._trial, self._steps, self._wait = None, 0, steps
        self._latest.clear()


class ThreadTuner:
    """A choice of its own for steps of 1, 2, 3 to 4, 5 to 8 rows and so on: what a second thread is worth
    depends on what there is to compute. Only steps of equally many rows are compared."""

    def __init__(self, most: int) -> None:
        """`most`: all threads that there are."""
        self._most = most
        self._choices: dict[int, Choice] = {}

    def next(self, rows: int) -> int:
        """How many threads the next step has, in which so many sequences decode a token each."""
        return self._choice(rows).next(rows)

    def note(self, rows: int, threads: int, ms: float) -> None:
        """Such a step with so many threads took so long."""
        self._choice(rows).note(rows, threads, ms)

    def settled(self, rows: int) -> int:
        """How many threads another step of so many rows should have: those of the steps measured, all of them
        where there were none."""
        choice = self._choices.get(_size(rows))
        return self._most if choice is None else choice.threads

    def _choice(self, rows: int) -> Choice:
        return self._choices.setdefault(_size(rows), Choice(self._most))


def _wait_after(trial: Trial) -> int:
    """After how many steps the cost of a trial is what it may be."""
    return min(LONGEST_WAIT, max(SHORTEST_WAIT, round(trial.cost_steps / BUDGET)))


def _size(rows: int) -> int:
    """The exponent of the power of two that so many rows come to."""
    return (rows - 1).bit_length()
